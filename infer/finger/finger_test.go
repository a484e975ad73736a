package finger_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"vigil/infer"
	"vigil/infer/builtin"
	"vigil/infer/finger"
	"vigil/infer/infertest"
	"vigil/kernels/minutiae"
	"vigil/sensors"
	"vigil/sensors/synth"
)

// built opens the bundle in the binary.
func built(t testing.TB) *finger.Pipeline {
	t.Helper()
	m, err := builtin.Finger()
	if err != nil {
		t.Fatal(err)
	}
	p, err := finger.New(t.Context(), infertest.Runtime(t), m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func gray(w, h int, data []byte) *sensors.Frame {
	f := &sensors.Frame{Sensor: "test", Seq: 1, Captured: time.Now(), Width: w, Height: h, Format: sensors.Gray8, FullRange: true}
	f.Planes[0] = sensors.Plane{Data: data, StrideBytes: w}
	return f
}

// touch makes one everyday impression.
func touch(t testing.TB, seed, touch uint64, change func(*synth.ImpressionOptions)) *synth.Impression {
	t.Helper()
	g := synth.NewGenerator()
	f, err := g.Finger(seed, synth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o := synth.Preset(synth.Normal)
	if change != nil {
		change(&o)
	}
	im, err := f.Impression(touch, o)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

func TestMinutiaeAreThoseOfTheTruth(t *testing.T) {
	p := built(t)
	r := p.NewResult()
	var found, given, right int
	for seed := range uint64(6) {
		im := touch(t, 9000+seed, 1, nil)
		if err := p.Process(t.Context(), gray(im.Width, im.Height, im.Gray), 500, r); err != nil {
			t.Fatal(err)
		}
		if !r.Present || r.Quality.Unified < 0.3 {
			t.Errorf("finger %d: present %v, quality %+v", seed, r.Present, r.Quality)
		}
		found, given = found+r.Minutiae, given+len(im.Truth.Minutiae)
		for i := range r.Minutiae {
			m := minutiae.At(r.Values, i)
			for _, want := range im.Truth.Minutiae {
				turned := math.Remainder(float64(m.Angle)-want.Angle, 2*math.Pi)
				if math.Hypot(float64(m.X)-want.X, float64(m.Y)-want.Y) < 8 && math.Abs(turned) < 0.4 {
					right++
					break
				}
			}
		}
	}
	if precision, recall := float64(right)/float64(found), float64(right)/float64(given); precision < 0.8 || recall < 0.75 {
		t.Errorf("precision %.2f, recall %.2f of %d minutiae", precision, recall, given)
	}
}

func TestMatedScoreAboveNonMated(t *testing.T) {
	p := built(t)
	a, b := p.NewResult(), p.NewResult()
	m := minutiae.NewMatcher()
	score := func(x, y *synth.Impression, dpi float64) float32 {
		if err := errors.Join(p.Process(t.Context(), gray(x.Width, x.Height, x.Gray), 500, a),
			p.Process(t.Context(), gray(y.Width, y.Height, y.Gray), dpi, b)); err != nil {
			t.Fatal(err)
		}
		if err := m.SetProbe(a.Values); err != nil {
			t.Fatal(err)
		}
		return m.Score(b.Values)
	}
	finer := func(o *synth.ImpressionOptions) { o.DPI, o.Width, o.Height = 700, 360, 448 }
	first := touch(t, 77, 1, nil)
	for name, c := range map[string]struct {
		other *synth.Impression
		dpi   float64
		least float32
		most  float32
	}{
		"the same finger":                   {touch(t, 77, 2, nil), 500, 0.4, 1},
		"the same at 700 dpi":               {touch(t, 77, 3, finer), 700, 0.4, 1},
		"another finger":                    {touch(t, 78, 1, nil), 500, 0, 0.4},
		"the same, but its resolution lies": {touch(t, 77, 3, finer), 500, 0, 0.4},
	} {
		if s := score(first, c.other, c.dpi); s < c.least || s > c.most {
			t.Errorf("%s: score %.3f, want %.2f to %.2f", name, s, c.least, c.most)
		}
	}
}

func TestLargePicturesAreCutAboutTheFinger(t *testing.T) {
	p := built(t)
	r := p.NewResult()
	im := touch(t, 77, 1, nil)
	const w, h, x0, y0 = 900, 800, 560, 430
	data := make([]byte, w*h)
	for i := range data {
		data[i] = 240
	}
	for y := range im.Height {
		copy(data[(y0+y)*w+x0:], im.Gray[y*im.Width:][:im.Width])
	}
	if err := p.Process(t.Context(), gray(w, h, data), 500, r); err != nil || !r.Present || r.Minutiae < 10 {
		t.Errorf("%v, present %v, %d minutiae", err, r.Present, r.Minutiae)
	}
}

func TestNoFingerIsNoError(t *testing.T) {
	p := built(t)
	r := p.NewResult()
	rng := rand.New(rand.NewPCG(1, 2))
	for _, noise := range []float64{0, 2, 8} {
		blank := make([]byte, 300*300)
		for i := range blank {
			blank[i] = byte(max(0, min(255, 200+noise*rng.NormFloat64())))
		}
		if err := p.Process(t.Context(), gray(300, 300, blank), 0, r); err != nil || r.Present || r.Minutiae != 0 {
			t.Errorf("noise of %v grey levels: %v, %+v", noise, err, r.Quality)
		}
	}
}

func TestProcessRefuses(t *testing.T) {
	p := built(t)
	r := p.NewResult()
	im := touch(t, 77, 1, nil)
	good := func() *sensors.Frame { return gray(im.Width, im.Height, im.Gray) }
	for name, c := range map[string]struct {
		change func(f *sensors.Frame)
		dpi    float64
	}{
		"a compressed frame":  {func(f *sensors.Frame) { f.Format = sensors.MJPEG }, 500},
		"too few bytes":       {func(f *sensors.Frame) { f.Planes[0].Data = f.Planes[0].Data[:99] }, 500},
		"a resolution of 100": {func(*sensors.Frame) {}, 100},
		"no number":           {func(*sensors.Frame) {}, math.NaN()},
		"too small":           {func(f *sensors.Frame) { f.Width, f.Height = 20, 20 }, 500},
	} {
		f := good()
		c.change(f)
		if err := p.Process(t.Context(), f, c.dpi, r); !errors.Is(err, finger.ErrFormat) || r.Present {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Process(ctx, good(), 500, r); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: %v", err)
	}
}

func TestCheckRefuses(t *testing.T) {
	for name, change := range map[string]func(m *infer.Manifest){
		"another template":   func(m *infer.Manifest) { m.Template.Dimension = 100 },
		"no describe":        func(m *infer.Manifest) { m.Stage("describe").Name = "tell" },
		"another step":       func(m *infer.Manifest) { m.Stage("extract").Pre.Name = "letterbox" },
		"an even window":     func(m *infer.Manifest) { m.Stage("extract").Pre.Params = []byte(`{"window": 32}`) },
		"another parameter":  func(m *infer.Manifest) { m.Stage("extract").Post.Params = []byte(`{"iou": 0.3}`) },
		"a score of 1":       func(m *infer.Manifest) { m.Stage("extract").Post.Params = []byte(`{"score": 1}`) },
		"an odd input":       func(m *infer.Manifest) { m.Stage("extract").Inputs[0].Shape[2] = 500 },
		"too large an input": func(m *infer.Manifest) { m.Stage("extract").Inputs[0].Shape[3] = 4096 },
		"too few rows":       func(m *infer.Manifest) { m.Stage("describe").Inputs[0].Shape[0] = 32 },
		"another grid":       func(m *infer.Manifest) { m.Stage("describe").Pre.Params = []byte(`{"grid": 3}`) },
	} {
		m, err := builtin.Finger()
		if err != nil {
			t.Fatal(err)
		}
		if change(m.Manifest); finger.Check(m.Manifest) == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestProcessAllocatesNothing(t *testing.T) {
	p := built(t)
	r := p.NewResult()
	im := touch(t, 77, 1, nil)
	f := gray(im.Width, im.Height, im.Gray)
	n := testing.AllocsPerRun(3, func() {
		if err := p.Process(t.Context(), f, 500, r); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}

func BenchmarkProcess(b *testing.B) {
	p := built(b)
	r := p.NewResult()
	im := touch(b, 77, 1, nil)
	f := gray(im.Width, im.Height, im.Gray)
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Process(b.Context(), f, 500, r); err != nil {
			b.Fatal(err)
		}
	}
}
