package face

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"vigil/infer"
	"vigil/infer/infertest/fake"
	"vigil/infer/preset"
	"vigil/kernels"
)

// played is a pipeline of the fake models of infertest, with liveness.
func played(t testing.TB, rt *fake.Runtime, change func(*infer.Manifest)) (*Pipeline, error) {
	t.Helper()
	m := fake.Manifest("fake", true)
	if change != nil {
		change(m)
	}
	weights := map[string]string{
		"detect.onnx": "fake detector", "embed.onnx": "fake embedder",
		"liveness-near.onnx": "fake liveness near", "liveness-wide.onnx": "fake liveness wide",
	}
	open := func(name string) (infer.Weights, error) { return words(weights[name]), nil }
	p, err := New(t.Context(), rt, &infer.Model{Manifest: m, Open: open})
	if err == nil {
		t.Cleanup(func() {
			if err := p.Close(); err != nil || rt.Leaked() != 0 {
				t.Errorf("close: %v, %d left open", err, rt.Leaked())
			}
		})
	}
	return p, err
}

type words string

func (w words) Bytes() []byte { return []byte(w) }
func (w words) Close() error  { return nil }

// likelihood makes a model of three classes answer p for class 1.
func likelihood(p float64) func(in, out [][]float32) error {
	return func(_, out [][]float32) error {
		copy(out[0], []float32{0, float32(math.Log(2 * p / (1 - p))), 0})
		return nil
	}
}

func TestLivenessIsTheWeightedMean(t *testing.T) {
	for _, c := range []struct {
		near, wide, weightNear, weightWide float64
		want                               float32
	}{
		{0.9, 0.5, 0.5, 0.5, 0.7}, {0.9, 0.5, 3, 1, 0.8}, {0.2, 0.2, 7, 7, 0.2}, {0.001, 0.999, 1, 1, 0.5},
	} {
		rt := fake.New()
		p, err := played(t, rt, func(m *infer.Manifest) {
			m.Stage("liveness-near").Weight, m.Stage("liveness-wide").Weight = c.weightNear, c.weightWide
		})
		if err != nil {
			t.Fatal(err)
		}
		rt.Play("fake liveness near", likelihood(c.near))
		rt.Play("fake liveness wide", likelihood(c.wide))
		r := p.NewResult()
		if err := p.Process(t.Context(), greyFrame(320, 320), r); err != nil || len(r.Faces) != 1 {
			t.Fatalf("%v, %d faces", err, len(r.Faces))
		}
		if f := r.Faces[0]; math.Abs(float64(f.Liveness-c.want)) > 1e-5 || !f.HasLiveness || f.Attack {
			t.Errorf("%+v: %v %v", c, f.Liveness, f.HasLiveness)
		}
		if s := r.Timings[livenessAt]; s.Took <= 0 || s.Deadline.Milliseconds() != 100 {
			t.Errorf("timing %+v, want both deadlines", s)
		}
	}
}

func TestLivenessModes(t *testing.T) {
	rt := fake.New()
	p, err := played(t, rt, nil)
	if err != nil {
		t.Fatal(err)
	}
	rt.Play("fake liveness near", likelihood(0.4))
	rt.Play("fake liveness wide", likelihood(0.4))
	r := p.NewResult()
	frame := greyFrame(320, 320)
	for _, c := range []struct {
		name           string
		set            func()
		scored, attack bool
	}{
		{"scored", func() {}, true, false},
		{"required, of the bundle", func() { must(t, p.RequireLiveness(0)) }, true, true},
		{"required, lower", func() { must(t, p.RequireLiveness(0.3)) }, true, false},
		{"required, exactly", func() { must(t, p.RequireLiveness(r.Faces[0].Liveness)) }, true, false},
		{"skipped", p.SkipLiveness, false, false},
		{"required again", func() { must(t, p.RequireLiveness(0)) }, true, true},
	} {
		c.set()
		runs := rt.Runs("fake liveness near")
		if err := p.Process(t.Context(), frame, r); err != nil {
			t.Fatal(err)
		}
		f := r.Faces[0]
		if f.HasLiveness != c.scored || f.Attack != c.attack || (len(f.Values) == 0) != c.attack {
			t.Errorf("%s: %+v", c.name, f)
		}
		if ran := rt.Runs("fake liveness near") > runs; ran != c.scored || (r.Timings[livenessAt].Deadline == 0) == c.scored {
			t.Errorf("%s: ran %v, %+v", c.name, ran, r.Timings[livenessAt])
		}
	}
	without := newFake(t, &fakeRuntime{detect: func(*fakeIO) error { return nil }, embed: ones})
	without.SkipLiveness() // has nothing to skip
	if err := without.RequireLiveness(0.5); !errors.Is(err, ErrNoLiveness) || without.HasLiveness() {
		t.Errorf("a bundle without liveness: %v", err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestLivenessErrors(t *testing.T) {
	nan := float32(math.NaN())
	for name, answer := range map[string]func(in, out [][]float32) error{
		"fails":           func(_, _ [][]float32) error { return errors.New("fails") },
		"not numbers":     func(_, out [][]float32) error { out[0][1] = nan; return nil },
		"are not numbers": func(_, out [][]float32) error { out[0][1] = float32(math.Inf(1)); return nil },
	} {
		rt := fake.New()
		p, err := played(t, rt, nil)
		must(t, err)
		rt.Play("fake liveness wide", answer)
		r := p.NewResult()
		err = p.Process(t.Context(), greyFrame(320, 320), r)
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "liveness-wide") || len(r.Faces) != 0 {
			t.Errorf("%s: %v, %d faces", name, err, len(r.Faces))
		}
	}
}

func TestSoftmax(t *testing.T) {
	for _, c := range []struct {
		in   []float32
		at   int
		want float32
	}{
		{[]float32{0, 0}, 0, 0.5}, {[]float32{1, 1, 1, 1}, 2, 0.25}, {[]float32{1000, 0}, 0, 1}, {[]float32{1000, 0}, 1, 0},
		{[]float32{-1000, -1001}, 0, 0.7310586}, {[]float32{3.4e38, -3.4e38}, 1, 0},
	} {
		if got, ok := softmax(c.in, c.at); !ok || math.Abs(float64(got-c.want)) > 1e-6 {
			t.Errorf("%v: %v %v, want %v", c.in, got, ok, c.want)
		}
	}
}

// TestCropRects: the rectangles, worked out by hand from the originals' arithmetic.
func TestCropRects(t *testing.T) {
	for _, c := range []struct {
		name  string
		rect  func([4]float32, int, int, float64) kernels.Rect
		box   [4]float32
		scale float64
		want  kernels.Rect // in a picture of 640x480
	}{
		{"inside", insideRect, [4]float32{270, 190, 100, 100}, 2.7, kernels.Rect{X: 185, Y: 105, W: 270, H: 270}},
		{"shifted from the left and the top", insideRect, [4]float32{10, 20, 100, 100}, 2.7, kernels.Rect{X: 0, Y: 0, W: 270, H: 270}},
		{"shifted from the right and the bottom", insideRect, [4]float32{530, 370, 100, 100}, 2.7, kernels.Rect{X: 370, Y: 210, W: 270, H: 270}},
		{"limited by the height, both sides", insideRect, [4]float32{200, 100, 100, 200}, 4, kernels.Rect{X: 130, Y: 0, W: 239, H: 479}},
		{"limited by the width", insideRect, [4]float32{0, 200, 639, 60}, 2, kernels.Rect{X: 0, Y: 200, W: 639, H: 60}},
		{"larger than the picture", insideRect, [4]float32{-100, -100, 1278, 1278}, 2, kernels.Rect{X: 161, Y: 1, W: 479, H: 479}},
		{"square of the longer side", squareRect, [4]float32{270, 190, 60, 100}, 1.5, kernels.Rect{X: 225, Y: 165, W: 150, H: 150}},
		{"beyond the picture", squareRect, [4]float32{0, 0, 100, 80}, 1.5, kernels.Rect{X: -25, Y: -35, W: 150, H: 150}},
	} {
		if got := c.rect(c.box, 640, 480, c.scale); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// TestHugeBoxesCostABoundedTime: whatever box a detector dreams up, the crops stay in memory and time.
func TestHugeBoxesCostABoundedTime(t *testing.T) {
	im := kernels.Image{Format: kernels.Gray8, Width: 64, Height: 48, Planes: [2]kernels.Plane{{Data: make([]byte, 64*48), StrideBytes: 64}}}
	dst := make([]float32, 3*16*16)
	n := kernels.Norm{InvStd: [3]float32{1, 1, 1}}
	for _, box := range [][4]float32{{0, 0, 1e30, 1e30}, {-1e30, 1e30, 10, 10}, {0, 0, 1e-30, 1e-30}, {0, 0, 6e5, 6e5}, {3, 3, 0, 9}} {
		for _, rect := range []func([4]float32, int, int, float64) kernels.Rect{insideRect, squareRect} {
			for _, area := range []bool{false, true} {
				kernels.CropResize(dst, 16, 16, &im, rect(box, 64, 48, 1.5), area, &n)
			}
		}
	}
}

func TestUltraFaceDecodes(t *testing.T) {
	d, err := newUltraFace(&infer.Step{Params: json.RawMessage(`{"score":0.7,"iou":0.3}`)})
	must(t, err)
	outputs := []infer.Tensor{{Name: "scores", Shape: []int64{1, 4, 2}}, {Name: "boxes", Shape: []int64{1, 4, 4}}}
	must(t, d.bind(outputs, 320, 240))
	nan := float32(math.NaN())
	io := &fakeIO{out: [][]float32{
		{0, 0.7, 0.8, 0.69, 0, 0.9, 0, 0.9},
		{0.25, 0.5, 0.5, 0.75, 0, 0, 1, 1, nan, 0, 1, 1, 0.5, 0.5, 0.4, 0.6},
	}}
	got := d.decode(io, 2, 3, make([]candidate, 0, 8))
	want := candidate{box: [4]float32{160, 360, 160, 180}, score: 0.7}
	if len(got) != 1 || got[0] != want {
		t.Errorf("%+v, want only %+v", got, want)
	}
	if got := d.decode(io, 2, 3, make([]candidate, 0)); len(got) != 0 {
		t.Error("candidates beyond the bound")
	}
	for name, bad := range map[string][]infer.Tensor{"boxes": outputs[:1], "scores": outputs[1:]} {
		if err := d.bind(bad, 320, 240); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

// TestBox5: the points of an average face in a box that has the proportions of the reference are the reference, so the
// crop is the box.
func TestBox5(t *testing.T) {
	points := make([]float32, 10)
	for i, v := range arcface {
		points[i] = v / 112
	}
	text, _ := json.Marshal(map[string]any{"size": 56, "points": points})
	a, err := alignPres.Make("pre", &infer.Step{Name: "box5", Params: text})
	must(t, err)
	f := Face{Box: [4]float32{100, 50, 224, 224}, Landmarks: true}
	m, ok := a.transform(&f)
	x, y := m.Apply(28, 28)
	if !ok || f.Landmarks || math.Abs(float64(x-212)) > 0.01 || math.Abs(float64(y-162)) > 0.01 || math.Abs(float64(m.Scale()-4)) > 1e-4 {
		t.Errorf("%v: middle of the crop is at %v,%v, scale %v", ok, x, y, m.Scale())
	}
	if math.Abs(float64(f.Points[0]-(100+2*arcface[0]))) > 1e-3 {
		t.Errorf("points %v", f.Points)
	}
	for params, want := range map[string]string{
		`{"size":112}`: "0 values", `{"points":[1,2]}`: "2 values", `{"points":[1,1,1,1,1,1,1,1,1,1]}`: "one place", `{"x":1}`: `"x"`,
	} {
		if _, err := alignPres.Make("pre", &infer.Step{Name: "box5", Params: json.RawMessage(params)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", params, err)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	params := func(s string) json.RawMessage { return json.RawMessage(s) }
	for _, c := range []struct {
		name   string
		change func(m *infer.Manifest)
		want   string
	}{
		{"another kind", func(m *infer.Manifest) { m.Stages = append(m.Stages, infer.Stage{Name: "age", DeadlineMS: 1}) }, `unknown kind "age"`},
		{"two detectors", func(m *infer.Manifest) {
			m.Stages = append(m.Stages, *m.Stage("detect"))
			m.Stages[len(m.Stages)-1].Kind = "detect"
		}, "only liveness is fused"},
		{"template of minutiae", func(m *infer.Manifest) { m.Template.Type = "minutiae" }, "template.type"},
		{"quality with a model", func(m *infer.Manifest) { m.Stage("quality").File = "x" }, "takes no model"},
		{"unknown crop", func(m *infer.Manifest) { m.Stage("liveness-near").Pre.Name = "whole" }, `there are "box-inside", "box-reflect"`},
		{"no crop", func(m *infer.Manifest) { m.Stage("liveness-near").Pre = nil }, "pre of stage liveness-near is missing"},
		{"scale", func(m *infer.Manifest) {
			m.Stage("liveness-near").Pre.Params = params(`{"scale":0.5,"order":"RGB","std":[1,1,1]}`)
		}, "scale 0.5"},
		{"parameter of a crop", func(m *infer.Manifest) { m.Stage("liveness-near").Pre.Params = params(`{"scal":2}`) }, "scal"},
		{"unknown fusion", func(m *infer.Manifest) { m.Stage("liveness-near").Post.Name = "sigmoid" }, `there are "softmax"`},
		{"class left out", func(m *infer.Manifest) { m.Stage("liveness-near").Post.Params = nil }, "bona_fide"},
		{"class that is not there", func(m *infer.Manifest) { m.Stage("liveness-near").Post.Params = params(`{"bona_fide":3}`) }, "has 3 classes"},
		{"one class", func(m *infer.Manifest) { m.Stage("liveness-near").Outputs[0].Shape = []int64{1, 1} }, "two classes"},
		{"liveness of another input", func(m *infer.Manifest) { m.Stage("liveness-near").Inputs[0].Shape = []int64{1, 1, 16, 16} }, "[1,3,H,W]"},
		{"unknown alignment", func(m *infer.Manifest) { m.Stage("align").Pre.Name = "mesh" }, `there are "box5", "similarity5"`},
		{"unknown embedding", func(m *infer.Manifest) { m.Stage("embed").Post.Name = "none" }, `there are "l2"`},
	} {
		m := fake.Manifest("fake", true)
		c.change(m)
		if err := Check(m); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	for _, name := range preset.Names() {
		m, err := preset.Load(name)
		must(t, err)
		if err := Check(m); err != nil {
			t.Errorf("preset %s: %v", name, err)
		}
	}
}
