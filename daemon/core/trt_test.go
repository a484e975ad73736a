//go:build tensorrt

package core_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/infer"
	"vigil/infer/chain"
	"vigil/infer/infertest/fake"
	"vigil/infer/trt"
	"vigil/infer/trt/trttest"
)

// standInBuilder makes engines of the stand-in for the library that is installed.
type standInBuilder struct{ manifest *infer.Manifest }

func (s standInBuilder) Library(_ context.Context, where string) (trt.Library, error) {
	l, err := trt.Inspect(where)
	l.Parser = "none: the engines are made here"
	return l, err
}

func (s standInBuilder) Build(ctx context.Context, _ trt.Order, model []byte, alloc trt.Alloc, _ func(trt.Step)) (trt.Memory, trt.Built, error) {
	text := []string{"scratch 64"}
	for _, stage := range s.manifest.Stages {
		if "fake "+map[string]string{"detect": "detector", "embed": "embedder"}[stage.Name] != string(model) {
			continue
		}
		for _, t := range stage.Inputs {
			text = append(text, fmt.Sprint("input ", t.Name, " ", strings.Trim(fmt.Sprint(t.Shape), "[]")))
		}
		for _, t := range stage.Outputs {
			text = append(text, fmt.Sprint("output ", t.Name, " ", strings.Trim(fmt.Sprint(t.Shape), "[]")))
		}
		break
	}
	engine := trttest.EngineText(text...)
	m, err := alloc(len(engine))
	if err != nil {
		return nil, trt.Built{}, err
	}
	copy(m.Bytes(), engine)
	l, err := s.Library(ctx, "")
	return m, trt.Built{Library: l, Bytes: int64(len(engine))}, err
}

// TestABundleMovesToTensorRT: on a machine with TensorRT (a stand-in) a bundle without engines runs on the next runtime,
// which says why; when its engines are built, the next start runs it on TensorRT, from the sealed cache; and a model's file
// that was altered on the disk sends it back.
func TestABundleMovesToTensorRT(t *testing.T) {
	for _, gen := range []trttest.Generation{trttest.Generations[0], trttest.Generations[2]} { // read whole, and as a stream
		t.Run(gen.Name, func(t *testing.T) {
			rt := fake.New()
			m := fake.Manifest("fake-a", false)
			d := daemontest.NewFake(t, rt, m)
			t.Setenv("VIGIL_TRT_LIB", trttest.StandIn(t, gen))
			open := func() *core.Appliance {
				// TensorRT as it is; then, in place of ONNX Runtime, what plays it.
				played := chain.Link{Name: "played", Open: func(context.Context) (infer.Runtime, error) { return rt, nil }}
				a, err := core.Open(t.Context(), d.Config, core.Options{Logger: daemontest.Logger(t), LinksOf: func(e trt.Engines) []chain.Link {
					return append(core.RuntimeLinks(d.Config, e)[:1], played)
				}, Builder: standInBuilder{m}})
				if err != nil {
					t.Fatal(err)
				}
				return a
			}
			a := open()
			list := imported(t, a)
			if len(list) != 1 || list[0].Runtime != "fake" || len(list[0].PassedOver) != 1 || !strings.Contains(list[0].PassedOver[0], "no engine is built") ||
				!strings.Contains(list[0].PassedOver[0], "vigild models build") {
				t.Fatalf("%+v %+v", list, a.Status())
			}
			if r := must[core.ModelReport](t)(a.VerifyModel(t.Context(), "fake-a")); !r.Good || len(r.WarmUps) != 2 {
				t.Errorf("%+v", r)
			}
			r := must[core.BuildReport](t)(a.BuildEngines(t.Context(), "fake-a", nil))
			if !r.Good || r.Library.Compute != "8.7" || r.CacheEntries != 2 {
				t.Fatalf("%+v", r)
			}
			closeApp(t, a)

			a = open()
			list = imported(t, a)
			if len(list) != 1 || !strings.HasPrefix(list[0].Runtime, "TensorRT ") || !strings.HasSuffix(list[0].Runtime, "on compute capability 8.7") ||
				len(list[0].PassedOver) != 0 || !list[0].Runtimes[0].Used {
				t.Fatalf("%+v %+v", list, a.Status())
			}
			runs := rt.Runs("fake detector")
			if r := must[core.ModelReport](t)(a.VerifyModel(t.Context(), "fake-a")); !r.Good || rt.Runs("fake detector") != runs {
				t.Errorf("%+v", r)
			}
			closeApp(t, a)
			damageEngines(t, d)
			a = open()
			if list = imported(t, a); len(list) != 1 || list[0].Runtime != "fake" || !strings.Contains(list[0].PassedOver[0], "does not open") {
				t.Errorf("%+v", list)
			}
			closeApp(t, a)
		})
	}
}
