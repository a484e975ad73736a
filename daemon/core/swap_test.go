package core_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/daemon/decide"
	"vigil/daemon/vault"
	"vigil/infer"
	"vigil/infer/infertest"
	"vigil/infer/infertest/fake"
	"vigil/infer/sched"
)

// second is a bundle of the fake models under another id, whose embedder is the one of the given bytes.
func second(id, embedder string, extra map[string]string) (*infer.Manifest, map[string]string) {
	m := fake.Manifest(id, false)
	m.Stage("embed").File = "embed-" + id + ".onnx"
	files := map[string]string{m.Stage("embed").File: embedder}
	for name, content := range extra {
		files[name] = content
	}
	return m, files
}

// gate is one that lets a variant in.
var gate = infer.Gate{Verdict: infer.VerdictPassed, Reason: "test", DataSet: "none", Metric: "agreement", FP32: 1, Variant: 1, FP32Seconds: 2, Seconds: 1, Machine: "test"}

// swappable is a device with the fake bundle, on which other embedders can be played too.
func swappable(t *testing.T, m *infer.Manifest, extra map[string]string) (*daemontest.Device, *fake.Runtime) {
	t.Helper()
	rt := fake.New()
	// Another model: the same people, at other right angles.
	rt.Play("fake embedder of next year", func(in, out [][]float32) error {
		for i := range out[0] {
			out[0][i] = 0.02
		}
		red := in[0][:len(in[0])/3]
		sum := float32(0)
		for _, v := range red {
			sum += v
		}
		out[0][31-min(int(sum/float32(len(red))/32), 7)] = 1
		return nil
	})
	rt.Play("fake embedder that says one thing", func(_, out [][]float32) error {
		out[0][3] = 1
		return nil
	})
	var calls atomic.Int64
	rt.Play("fake embedder that changes its mind", func(_, out [][]float32) error {
		clear(out[0])
		out[0][calls.Add(1)%32] = 1
		return nil
	})
	rt.Play("fake embedder that breaks", func([][]float32, [][]float32) error { return errors.New("no such operator") })
	d := daemontest.NewFake(t, rt, nil)
	d.Config.Runtime.Workers = 2
	d.Import(t, fake.Write(t, m, extra), "")
	return d, rt
}

func importSecond(t *testing.T, a *core.Appliance, id, embedder string) {
	t.Helper()
	m, files := second(id, embedder, nil)
	must[string](t)(a.ImportModel(t.Context(), fake.Write(t, m, files), ""))
}

func faceStatus(t *testing.T, a *core.Appliance) core.ModelStatus {
	t.Helper()
	for _, m := range a.Status().Models {
		if m.Modality == core.Face {
			return m
		}
	}
	t.Fatal("no faces in the status")
	return core.ModelStatus{}
}

// identifyOne is the one decision about a picture of a person.
func identifyOne(t *testing.T, a *core.Appliance, person int) core.Decision {
	t.Helper()
	list := must[[]core.Decision](t)(a.Identify(t.Context(), fake.Picture(t, person, true, true, 9)))
	if len(list) != 1 {
		t.Fatalf("%d decisions", len(list))
	}
	return list[0]
}

func TestSwapToAnotherModelLosesNobody(t *testing.T) {
	d, _ := swappable(t, fake.Manifest("old", false), nil)
	a := d.Open(t)
	ann, bob := enrollPlayed(t, a, 2), enrollPlayed(t, a, 5)
	importSecond(t, a, "new", "fake embedder of next year")
	r := must[core.SwapReport](t)(a.SwapModel(t.Context(), "new"))
	if !r.Done || r.From != "old" || r.To != "new" || r.Elder != "old" || r.Left != 2 || r.Check.Pictures == 0 || r.UntilRestart {
		t.Errorf("report %+v", r)
	}
	known := func(model string) {
		t.Helper()
		if dec := identifyOne(t, a, 2); dec.Outcome != decide.Match || dec.Subject != ann || model != "" && dec.Model != model {
			t.Errorf("Ann: %+v, must be known by %s", dec, model)
		}
		if dec := must[core.Decision](t)(a.Verify(t.Context(), ann, fake.Picture(t, 2, true, true, 3))); dec.Outcome != decide.Match || model != "" && dec.Model != model {
			t.Errorf("Ann, verified: %+v, must be known by %s", dec, model)
		}
		if dec := identifyOne(t, a, 7); dec.Outcome != decide.NoMatch {
			t.Errorf("a stranger: %+v", dec)
		}
	}
	known("old")
	if _, err := a.Enroll(t.Context(), "Ann again", [][]byte{fake.Picture(t, 2, true, true, 4), fake.Picture(t, 2, true, true, 5)}); !errors.Is(err, core.ErrDuplicate) {
		t.Errorf("somebody whom only the model before knows was enrolled twice: %v", err)
	}
	if err := a.RemoveModel(t.Context(), "old"); !errors.Is(err, core.ErrModelInUse) {
		t.Errorf("the model before was removed: %v", err)
	}
	importSecond(t, a, "third", "fake embedder of next year")
	if _, err := a.SwapModel(t.Context(), "third"); !errors.Is(err, core.ErrCatchingUp) {
		t.Errorf("a third model: %v", err)
	}
	closeApp(t, a)

	a = d.Open(t) // the choice and the model before survive, although three bundles are there
	known("old")
	again := func(id string, person int) {
		t.Helper()
		u := must[*core.Unit](t)(a.Unit(core.Face))
		must[core.Enrolled](t)(u.Enroll(t.Context(), core.Person{Subject: id}, []core.Picture{{Data: fake.Picture(t, person, true, true, 6)}, {Data: fake.Picture(t, person, true, true, 7)}}))
	}
	again(ann, 2)
	known("") // both know her: whoever is surer
	a.Tend(t.Context())
	if s := faceStatus(t, a); s.Elder != "old" || s.Left != 1 {
		t.Errorf("status %+v", s)
	}
	again(bob, 5)
	a.Tend(t.Context())
	if s := faceStatus(t, a); s.ID != "new" || s.Elder != "" || s.Left != 0 {
		t.Errorf("status %+v", s)
	}
	known("new")
	if err := a.RemoveModel(t.Context(), "old"); err != nil {
		t.Errorf("the model that nobody needs: %v", err)
	}
	kinds := a.AuditTypes(t)
	for _, k := range []string{"model.swap", "model.swap.refused", "model.retire"} {
		if !slices.Contains(kinds, k) {
			t.Errorf("no %s in the audit: %v", k, kinds)
		}
	}
	closeApp(t, a)
}

func TestABadModelIsDroppedAndSaysWhy(t *testing.T) {
	d, rt := swappable(t, fake.Manifest("old", false), nil)
	a := d.Open(t)
	defer closeApp(t, a)
	ann := enrollPlayed(t, a, 2)
	open := rt.Leaked()
	for _, c := range []struct{ id, embedder, why string }{
		{"constant", "fake embedder that says one thing", "one template"},
		{"moody", "fake embedder that changes its mind", "another template each time"},
	} {
		importSecond(t, a, c.id, c.embedder)
		r, err := a.SwapModel(t.Context(), c.id)
		if !errors.Is(err, core.ErrDisagrees) || !strings.Contains(err.Error(), c.why) || r.Done || r.Reason == "" {
			t.Errorf("%s: %v, %+v", c.id, err, r)
		}
		if s := faceStatus(t, a); s.ID != "old" || s.LastSwap == nil || s.LastSwap.To != c.id || !strings.Contains(s.LastSwap.Reason, c.why) {
			t.Errorf("%s: status %+v", c.id, s)
		}
		if dec := identifyOne(t, a, 2); dec.Subject != ann || dec.Model != "old" {
			t.Errorf("after %s: %+v", c.id, dec)
		}
	}
	if n := rt.Leaked(); n != open {
		t.Errorf("%d engines and tensors were open before, %d after", open, n)
	}
	if _, err := a.SwapModel(t.Context(), "nobody"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("a bundle that is not there: %v", err)
	}
	m, files := second("broken", "fake embedder that breaks", nil)
	if id, _, err := a.ImportAndUseModel(t.Context(), fake.Write(t, m, files), ""); err == nil || id != "" {
		t.Errorf("a model that cannot run: %q, %v", id, err)
	}
	if n := strings.Count(strings.Join(a.AuditTypes(t), " "), "model.swap.refused"); n != 2 {
		t.Errorf("%d refusals were audited, want 2", n)
	}
}

// TestTheSameModelAtAnotherPrecisionMustAgree: a variant comes into use because the runtime prefers it now.
func TestTheSameModelAtAnotherPrecisionMustAgree(t *testing.T) {
	for _, c := range []struct {
		variant string
		agrees  bool
	}{{"fake embedder", true}, {"fake embedder of next year", false}} {
		m := fake.Manifest("old", false)
		m.Stage("embed").Variants = []infer.Variant{{Precision: infer.PrecisionINT8, Dialect: infer.DialectCPU, File: "embed-int8.onnx", Calibration: "none", Gate: gate}}
		d, rt := swappable(t, m, map[string]string{"embed-int8.onnx": c.variant})
		a := d.Open(t)
		enrollPlayed(t, a, 2)
		rt.Prefers = []string{infer.DialectCPU}
		r, err := a.SwapModel(t.Context(), "old")
		if c.agrees && (err != nil || !r.Done || r.Check.LeastAgreement < 0.99) || !c.agrees && !errors.Is(err, core.ErrDisagrees) {
			t.Errorf("%s: %v, %+v", c.variant, err, r)
		}
		precision := must[core.ModelDetail](t)(a.Model("old")).Choices[1].Precision
		if want := map[bool]string{true: infer.PrecisionINT8, false: "float32"}[c.agrees]; precision != want {
			t.Errorf("%s: runs at %s, want %s", c.variant, precision, want)
		}
		closeApp(t, a)
	}
}

// TestSwapsUnderTraffic exchanges two models to and fro while people are identified: every answer names its model and is
// right for it.
func TestSwapsUnderTraffic(t *testing.T) {
	d, _ := swappable(t, fake.Manifest("old", false), nil)
	d.Config.Policy.APIQueue = 64
	a := d.Open(t)
	defer closeApp(t, a)
	importSecond(t, a, "new", "fake embedder of next year")
	ann := enrollPlayed(t, a, 2)
	picture := fake.Picture(t, 2, true, true, 9)
	var stop atomic.Bool
	var answers atomic.Int64
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for !stop.Load() {
				list, err := a.Identify(t.Context(), picture)
				if err != nil || len(list) != 1 || list[0].Outcome != decide.Match || list[0].Subject != ann || list[0].Model != "old" {
					t.Errorf("%v, %+v", err, list)
					return
				}
				answers.Add(1)
			}
		})
	}
	for i := range 20 {
		to := []string{"new", "old"}[i%2]
		if _, err := a.SwapModel(t.Context(), to); err != nil {
			t.Errorf("swap %d to %s: %v", i, to, err)
		}
	}
	stop.Store(true)
	wg.Wait()
	if answers.Load() == 0 {
		t.Error("nobody was identified meanwhile")
	}
	t.Logf("%d answers during 20 exchanges", answers.Load())
}

func TestAConfiguredModelComesBackAfterARestart(t *testing.T) {
	d, _ := swappable(t, fake.Manifest("old", false), nil)
	d.Config.Models.Face = "old"
	a := d.Open(t)
	importSecond(t, a, "new", "fake embedder of next year")
	if r := must[core.SwapReport](t)(a.SwapModel(t.Context(), "new")); !r.UntilRestart || r.Elder != "" {
		t.Errorf("report %+v", r)
	}
	closeApp(t, a)
	a = d.Open(t)
	if s := faceStatus(t, a); s.ID != "old" {
		t.Errorf("in use: %+v", s)
	}
	closeApp(t, a)
}

func TestASensorFollowsTheExchange(t *testing.T) {
	d, _ := swappable(t, fake.Manifest("old", false), nil)
	a := d.Open(t)
	defer closeApp(t, a)
	importSecond(t, a, "new", "fake embedder of next year")
	ann := enrollPlayed(t, a, 2)
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for i, name := range []string{"a.png", "b.png"} {
		if err := os.WriteFile(filepath.Join(dir, name), fake.Picture(t, 2, true, true, uint64(20+i)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w := a.Watch()
	defer w.Stop()
	cam := config.Sensor{Name: "door", Driver: "replay", Path: dir, Rate: 30, Speed: 10, Loop: true}
	if err := a.AddSensor(t.Context(), cam); err != nil {
		t.Fatal(err)
	}
	next := func(model string) {
		t.Helper()
		for {
			select {
			case dec := <-w.C:
				if dec.Sensor == "door" && dec.Model == model {
					if dec.Outcome != decide.Match || dec.Subject != ann {
						t.Errorf("%+v", dec)
					}
					return
				}
			case <-time.After(30 * time.Second):
				t.Fatalf("no decision by %s", model)
			}
		}
	}
	next("old")
	must[core.SwapReport](t)(a.SwapModel(t.Context(), "new"))
	next("new") // known by the model before, followed with the new one
}

func TestWhatIsKnownOfTheEnginesSurvivesARestart(t *testing.T) {
	d, _ := swappable(t, fake.Manifest("old", false), nil)
	a := d.Open(t)
	if a.KnownTimes() != 0 {
		t.Error("a new device knows times")
	}
	identifyOne(t, a, 2)
	closeApp(t, a)
	a = d.Open(t)
	if a.KnownTimes() == 0 {
		t.Error("the restart made it blind")
	}
	closeApp(t, a)
	d.Config.Runtime.Workers = 1
	a = d.Open(t)
	if a.KnownTimes() != 0 {
		t.Error("times with two workers were taken for those of one")
	}
	closeApp(t, a)
}

// TestBusySaysWhenToComeBack: a request whose time is shorter than what it needs is refused at once: nothing runs for it.
func TestBusySaysWhenToComeBack(t *testing.T) {
	d, rt := swappable(t, fake.Manifest("old", false), nil)
	a := d.Open(t)
	defer closeApp(t, a)
	rt.Play("fake embedder", func(_, out [][]float32) error {
		time.Sleep(2 * time.Second)
		out[0][0] = 1
		return nil
	})
	picture := fake.Picture(t, 2, true, true, 9)
	if _, err := a.Identify(t.Context(), picture); err != nil {
		t.Fatalf("nothing was known of the engine: %v", err)
	}
	ran := rt.Runs("fake detector")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := a.Identify(ctx, picture)
	var r *sched.Refusal
	if !errors.Is(err, core.ErrBusy) || !errors.As(err, &r) || r.Reason != sched.ReasonDeadline || r.RetryAfter() <= 0 {
		t.Errorf("%v", err)
	}
	if n := rt.Runs("fake detector"); n != ran {
		t.Errorf("it ran %d times", n-ran)
	}
	st := a.Schedulers()[0].Class[sched.API]
	if st.Refused[sched.ReasonDeadline] != 1 || st.Done != 1 {
		t.Errorf("%+v", st)
	}
}

// TestSwapOfRealModels: on ONNX Runtime the bundle in use is exchanged for itself, loaded anew, and for one with another
// detector; the fingers' for itself.
func TestSwapOfRealModels(t *testing.T) {
	d := daemontest.NewWithModel(t)
	a := d.Open(t)
	defer closeApp(t, a)
	pics := daemontest.Pictures(t, ann, 4)
	e := must[core.Enrolled](t)(a.Enroll(t.Context(), "Ann", pics[:3]))
	for _, m := range a.Status().Models {
		r := must[core.SwapReport](t)(a.SwapModel(t.Context(), m.ID))
		t.Logf("%s for itself: %+v", m.ID, r)
		if r.Elder != "" || m.Modality == core.Face && r.Check.LeastAgreement < 0.999 {
			t.Errorf("%+v", r)
		}
	}
	id := must[string](t)(a.ImportModel(t.Context(), infertest.Data(t, "models"), "face-ultraface"))
	r := must[core.SwapReport](t)(a.SwapModel(t.Context(), id))
	t.Logf("%+v", r)
	if !r.Done || r.Left != 1 {
		t.Errorf("%+v", r)
	}
	list := must[[]core.Decision](t)(a.Identify(t.Context(), pics[3]))
	if len(list) == 0 || list[0].Subject != e.Subject || list[0].Model == id {
		t.Errorf("somebody whom only the bundle before knows: %+v", list)
	}
	dec := must[core.Decision](t)(a.Verify(t.Context(), e.Subject, pics[3]))
	if dec.Outcome != decide.Match {
		t.Errorf("%+v", dec)
	}
}
