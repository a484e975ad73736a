package core_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/daemon/vault"
	"vigil/infer"
	"vigil/infer/chain"
	"vigil/infer/infertest/fake"
	"vigil/infer/trt"
)

// playedBuilder is a builder whose library a test exchanges. Its engines are made of the model and the library's version.
type playedBuilder struct {
	library trt.Library
	missing error            // of the library
	refuse  map[string]error // by model
	builds  []string         // models, in order
	steps   []trt.Step
}

func (p *playedBuilder) Library(context.Context, string) (trt.Library, error) {
	return p.library, p.missing
}

func (p *playedBuilder) Build(_ context.Context, o trt.Order, model []byte, alloc trt.Alloc, step func(trt.Step)) (trt.Memory, trt.Built, error) {
	p.builds = append(p.builds, string(model))
	if err := p.refuse[string(model)]; err != nil {
		return nil, trt.Built{}, fmt.Errorf("%w: %w", core.ErrBuild, err)
	}
	for _, s := range p.steps {
		step(s)
	}
	engine := engineOf(p.library, model)
	m, err := alloc(len(engine))
	if err != nil {
		return nil, trt.Built{}, err
	}
	copy(m.Bytes(), engine)
	return m, trt.Built{Library: p.library, Bytes: int64(len(engine)), Layers: len(o.Inputs)}, nil
}

func engineOf(l trt.Library, model []byte) []byte {
	sum := sha256.Sum256(fmt.Append(nil, l.Version, string(model)))
	return bytes.Repeat(sum[:], 1000)
}

var jetson = trt.Library{Path: "/lib/libnvinfer.so.10", Version: 100300, Generation: "10", Parser: "/lib/libnvonnxparser.so.10", CUDA: 12060, Driver: 12060, Compute: "8.7"}

// openWith opens the device with a builder.
func openWith(t *testing.T, d *daemontest.Device, b core.EngineBuilder) *core.Appliance {
	t.Helper()
	return must[*core.Appliance](t)(core.Open(t.Context(), d.Config, core.Options{Logger: daemontest.Logger(t), Runtime: d.Runtime(), Builder: b}))
}

// int8Manifest is a bundle whose embedder has an INT8 file for TensorRT.
func int8Manifest() (*infer.Manifest, map[string]string) {
	m := fake.Manifest("fake-int8", false)
	s := m.Stage("embed")
	s.Variants = []infer.Variant{{
		Precision: infer.PrecisionINT8, Dialect: infer.DialectTensorRT, File: "embed.qdq-s8.onnx", Calibration: "played",
		Gate: infer.Gate{Verdict: infer.VerdictPassed, Metric: "accuracy", FP32: 1, Variant: 1},
	}}
	return m, map[string]string{"embed.qdq-s8.onnx": "fake embedder in int8"}
}

// damageEngines changes one byte of every cached engine.
func damageEngines(t *testing.T, d *daemontest.Device) {
	t.Helper()
	for _, f := range must[[]string](t)(filepath.Glob(filepath.Join(d.Config.StateDir, "engines", "*.engine"))) {
		data := must[[]byte](t)(os.ReadFile(f))
		data[len(data)-20] ^= 1
		if err := os.WriteFile(f, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func states(r core.BuildReport) (list []string) {
	for _, e := range r.Engines {
		list = append(list, e.Stage+" "+e.Precision+" "+e.State)
	}
	return list
}

func TestEnginesAreBuiltOnceAVersion(t *testing.T) {
	m, files := int8Manifest()
	rt := fake.New()
	d := daemontest.NewFake(t, rt, nil)
	d.Import(t, fake.Write(t, m, files), "")
	b := &playedBuilder{library: jetson, steps: []trt.Step{{Phase: "Building", Steps: 3}, {Phase: "Building", Done: 1}}}
	build := func(want ...string) core.BuildReport {
		t.Helper()
		a := openWith(t, d, b)
		defer closeApp(t, a)
		b.builds = nil
		r := must[core.BuildReport](t)(a.BuildEngines(t.Context(), "fake-int8", nil))
		if got := states(r); !slices.Equal(got, want) || !r.Good {
			t.Errorf("%q, want %q: %+v", got, want, r)
		}
		return r
	}
	r := build("detect float32 built", "embed int8 built")
	if len(b.builds) != 2 || b.builds[1] != "fake embedder in int8" || r.Name != "TensorRT 10.3.0" || r.CacheEntries != 2 {
		t.Errorf("built %q, %+v", b.builds, r)
	}
	if !strings.Contains(r.Engines[0].Reason, "no variant of this stage") || !strings.Contains(r.Engines[1].Reason, "its gate passed") {
		t.Errorf("reasons %q, %q", r.Engines[0].Reason, r.Engines[1].Reason)
	}
	build("detect float32 found", "embed int8 found") // also after a restart
	if len(b.builds) != 0 {
		t.Errorf("built again: %q", b.builds)
	}
	b.library.Version = 100301
	r = build("detect float32 built", "embed int8 built")
	if r.CacheEntries != 4 {
		t.Errorf("%d entries", r.CacheEntries)
	}
	b.library.Driver = 12080
	build("detect float32 built", "embed int8 built")
	b.library.Driver = 12060
	build("detect float32 found", "embed int8 found")

	// An entry that was altered is built again, and the report and the progress say so.
	damageEngines(t, d)
	a := openWith(t, d, b)
	var told []string
	r = must[core.BuildReport](t)(a.BuildEngines(t.Context(), "fake-int8", func(p core.BuildProgress) {
		text := p.Stage + " " + p.State
		if p.Step != nil {
			text += fmt.Sprintf(" %s %d/%d", p.Step.Phase, p.Step.Done, p.Step.Steps)
		}
		told = append(told, text)
	}))
	want := []string{"detect broken", "detect building", "detect building Building 0/3", "detect building Building 1/0", "detect built"}
	if !slices.Equal(told[:5], want) || !strings.Contains(strings.Join(r.Engines[0].Notes, ""), "removed and built again") {
		t.Errorf("told %q, notes %q", told, r.Engines[0].Notes)
	}
	if !slices.Contains(a.AuditTypes(t), "model.build") {
		t.Error("it is not in the audit trail")
	}
	closeApp(t, a)
}

// TestEnginesGoWithTheirBundle: a removed bundle leaves no engine.
func TestEnginesGoWithTheirBundle(t *testing.T) {
	m, files := int8Manifest()
	d := daemontest.NewFake(t, fake.New(), fake.Manifest("fake-other", false))
	d.Import(t, fake.Write(t, m, files), "")
	d.Config.Models.Face = "fake-other"
	a := openWith(t, d, &playedBuilder{library: jetson})
	defer closeApp(t, a)
	must[core.BuildReport](t)(a.BuildEngines(t.Context(), "fake-int8", nil))
	if err := a.RemoveModel(t.Context(), "fake-int8"); err != nil {
		t.Fatal(err)
	}
	if left := must[[]string](t)(filepath.Glob(filepath.Join(d.Config.StateDir, "engines", "*"))); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestWhatCannotBeBuiltIsSaid: for the stage, or for the whole.
func TestWhatCannotBeBuiltIsSaid(t *testing.T) {
	m, files := int8Manifest()
	d := daemontest.NewFake(t, fake.New(), nil)
	d.Import(t, fake.Write(t, m, files), "")
	b := &playedBuilder{library: jetson, refuse: map[string]error{"fake embedder in int8": fmt.Errorf("%w: node \"x\" (Y)", trt.ErrRefused)}}
	a := openWith(t, d, b)
	defer closeApp(t, a)
	r := must[core.BuildReport](t)(a.BuildEngines(t.Context(), "fake-int8", nil))
	if r.Good || !slices.Equal(states(r), []string{"detect float32 built", "embed int8 failed"}) || !strings.Contains(r.Engines[1].Problem, `node "x" (Y)`) {
		t.Errorf("%+v", r)
	}
	if _, err := a.BuildEngines(t.Context(), "nothing", nil); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("no bundle: %v", err)
	}
	b.library.Parser = ""
	if _, err := a.BuildEngines(t.Context(), "fake-int8", nil); !errors.Is(err, core.ErrNoBuilder) || !strings.Contains(err.Error(), "no ONNX parser") {
		t.Errorf("no parser: %v", err)
	}
	b.missing = trt.ErrNoLibrary
	if _, err := a.BuildEngines(t.Context(), "fake-int8", nil); !errors.Is(err, core.ErrNoBuilder) || !errors.Is(err, trt.ErrNoLibrary) {
		t.Errorf("no library: %v", err)
	}
}

// TestNoBuilder: a program without the tag says so.
func TestNoBuilder(t *testing.T) {
	d := daemontest.NewFake(t, fake.New(), fake.Manifest("fake-a", false))
	a := d.Open(t)
	defer closeApp(t, a)
	if _, err := a.BuildEngines(t.Context(), "fake-a", nil); !errors.Is(err, core.ErrNoBuilder) || !strings.Contains(err.Error(), "tag tensorrt") {
		t.Errorf("error %v", err)
	}
}

// refusing is a runtime that does not take one model.
type refusing struct {
	infer.Runtime
	model string
}

func (r refusing) Name() string { return "refusing" }
func (r refusing) Load(ctx context.Context, onnx []byte, in, out []infer.Tensor) (infer.Engine, error) {
	if string(onnx) == r.model {
		return nil, fmt.Errorf("%w: node \"n\" (Strange)", trt.ErrRefused)
	}
	return r.Runtime.Load(ctx, onnx, in, out)
}

// TestARefusedBundleGoesToTheNextRuntime, and `vigild models` says why.
func TestARefusedBundleGoesToTheNextRuntime(t *testing.T) {
	rt := fake.New()
	d := daemontest.NewFake(t, rt, fake.Manifest("fake-a", false))
	link := func(name string, rt infer.Runtime, err error) chain.Link {
		return chain.Link{Name: name, Open: func(context.Context) (infer.Runtime, error) { return rt, err }}
	}
	told := chain.Link{Name: "c", Probe: func() chain.Answer { return chain.Answer{State: chain.No, Reason: "no device"} }}
	for name, c := range map[string]struct {
		model  string
		passed []string
		runs   string
	}{
		"taken":   {"another", []string{"a: no driver"}, "refusing"},
		"refused": {"fake embedder", []string{"a: no driver", `b: bundle fake-a, stage embed: TensorRT refuses: node "n" (Strange)`, "c: no device"}, "fake"},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := core.Open(t.Context(), d.Config, core.Options{Logger: daemontest.Logger(t), LinksOf: func(trt.Engines) []chain.Link {
				return []chain.Link{link("a", nil, errors.New("no driver")), link("b", refusing{rt, c.model}, nil), told, link("d", rt, nil)}
			}})
			if err != nil {
				t.Fatal(err)
			}
			list := imported(t, a)
			if len(list) != 1 || !list[0].InUse || list[0].Runtime != c.runs || len(list[0].PassedOver) != len(c.passed) || len(list[0].Runtimes) != 4 {
				t.Fatalf("%+v", list)
			}
			for i, p := range list[0].PassedOver {
				if p != c.passed[i] && !(strings.HasPrefix(p, "b: ") && strings.Contains(p, `node "n" (Strange)`)) {
					t.Errorf("passed over %q, want %q", p, c.passed[i])
				}
			}
			closeApp(t, a)
		})
	}
}
