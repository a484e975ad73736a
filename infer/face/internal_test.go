package face

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"vigil/infer"
	"vigil/infer/preset"
	"vigil/kernels"
	"vigil/sensors"
)

// fakeIO is a model that a test plays: answer fills the outputs from the inputs.
type fakeIO struct {
	in, out [][]float32
	answer  func(io *fakeIO) error
	runs    int
	closed  *int
}

func (f *fakeIO) Input(i int) []float32  { return f.in[i] }
func (f *fakeIO) Output(i int) []float32 { return f.out[i] }
func (f *fakeIO) Close() error           { *f.closed++; return nil }
func (f *fakeIO) Run(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.runs++
	return f.answer(f)
}

type fakeEngine struct {
	io     *fakeIO
	closed *int
}

func (e fakeEngine) NewIO() (infer.IO, error) { return e.io, nil }
func (e fakeEngine) Close() error             { *e.closed++; return nil }

// fakeRuntime loads a fake model per stage: the detector has more than one output.
type fakeRuntime struct {
	detect, embed  func(io *fakeIO) error
	opened, closed int
}

func (r *fakeRuntime) Name() string       { return "fake" }
func (r *fakeRuntime) Dialects() []string { return nil }
func (r *fakeRuntime) Close() error       { return nil }
func (r *fakeRuntime) Load(_ context.Context, _ []byte, in, out []infer.Tensor) (infer.Engine, error) {
	io := &fakeIO{answer: r.embed, closed: &r.closed}
	if len(out) > 1 {
		io.answer = r.detect
	}
	for _, t := range in {
		io.in = append(io.in, make([]float32, t.Elements()))
	}
	for _, t := range out {
		io.out = append(io.out, make([]float32, t.Elements()))
	}
	r.opened += 2 // engine and IO
	return fakeEngine{io, &r.closed}, nil
}

type noWeights struct{}

func (noWeights) Bytes() []byte { return nil }
func (noWeights) Close() error  { return nil }

func fakeModel(t testing.TB) *infer.Model {
	t.Helper()
	m, err := preset.Load("face")
	if err != nil {
		t.Fatal(err)
	}
	return &infer.Model{Manifest: m, Open: func(string) (infer.Weights, error) { return noWeights{}, nil }}
}

// plant puts a face into the outputs of the detector: at a cell of the map of stride 8, of 24 pixels' side, with its
// points where an upright face has them.
func plant(io *fakeIO, col, row int, score float32, side float64) {
	i := row*40 + col
	io.out[0][i], io.out[3][i] = score, score // cls_8, obj_8
	b, k := io.out[6][4*i:][:4], io.out[9][10*i:][:10]
	b[0], b[1], b[2], b[3] = 0.5, 0.5, float32(math.Log(side/8)), float32(math.Log(side/8))
	for j := range arcface {
		k[j] = 0.5 + (arcface[j]/112-0.5)*float32(side/8)
	}
}

func ones(io *fakeIO) error {
	for i := range io.out[0] {
		io.out[0][i] = float32(i%7) - 2.5
	}
	return nil
}

func newFake(t testing.TB, rt *fakeRuntime) *Pipeline {
	t.Helper()
	p, err := New(t.Context(), rt, fakeModel(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil || rt.closed != rt.opened {
			t.Errorf("close: %v, %d of %d closed", err, rt.closed, rt.opened)
		}
	})
	return p
}

func greyFrame(w, h int) *sensors.Frame {
	pix := make([]byte, w*h)
	for i := range pix {
		pix[i] = byte(i * 7)
	}
	return &sensors.Frame{Format: sensors.Gray8, Width: w, Height: h, Planes: [2]sensors.Plane{{Data: pix, StrideBytes: w}}}
}

func TestFacesAreBoundedAndLargestFirst(t *testing.T) {
	rt := &fakeRuntime{embed: ones, detect: func(io *fakeIO) error {
		for i := range 12 {
			plant(io, 2+3*i, 3+(i%3)*10, 0.9, 25+float64(i))
		}
		return nil
	}}
	p := newFake(t, rt)
	r := p.NewResult()
	if err := p.Process(t.Context(), greyFrame(320, 320), r); err != nil {
		t.Fatal(err)
	}
	if len(r.Faces) != MaxFaces || r.Seen != 12 {
		t.Fatalf("%d faces of %d seen, want %d of 12", len(r.Faces), r.Seen, MaxFaces)
	}
	for i := range r.Faces {
		if i > 0 && r.Faces[i].Box[2] > r.Faces[i-1].Box[2] {
			t.Errorf("face %d is larger than the one before", i)
		}
		if len(r.Faces[i].Values) != 128 || cap(r.Faces[i].Values) != 128 || r.Faces[i].Scale == 0 {
			t.Errorf("face %d has no template of its own", i)
		}
	}
	if r.Faces[0].Box[2] < 35.9 || r.Faces[0].Box[2] > 36.1 {
		t.Errorf("largest is %v wide, want 36", r.Faces[0].Box[2])
	}
	for i, name := range order {
		if name == StageLiveness && (r.Timings[i].Took != 0 || r.Timings[i].Deadline != 0) {
			t.Errorf("a bundle without liveness took time for it: %+v", r.Timings[i])
		}
		if name == StageLiveness {
			continue
		}
		if r.Timings[i].Stage != name || r.Timings[i].Took <= 0 || r.Timings[i].Deadline <= 0 || r.Total < r.Timings[i].Took {
			t.Errorf("timing %d: %+v of %v", i, r.Timings[i], r.Total)
		}
	}
	r.Wipe()
	for _, v := range r.values {
		if v != 0 {
			t.Fatal("a template stayed behind Wipe")
		}
	}
}

// TestDecode: one cell by hand. Stride 16, cell (3, 2) of a 320x320 map, frame twice as large as the tensor.
func TestDecode(t *testing.T) {
	p := newFake(t, &fakeRuntime{embed: ones, detect: func(*fakeIO) error { return nil }})
	io, yn := p.detect.IO.(*fakeIO), p.detect.post.(*yunet)
	const i = 2*20 + 3
	io.out[1][i], io.out[4][i] = 0.81, 0.64           // cls_16, obj_16: score sqrt(0.5184) = 0.72
	copy(io.out[7][4*i:], []float32{0.25, 0.5, 1, 0}) // centre (3.25, 2.5)*16 = (52, 40), size 16e x 16
	copy(io.out[10][10*i:], []float32{0, 0, 1, 0.5, -1, -1, 0.5, 0.5, 2, 3})
	got := yn.cells(yn.scales[1], io, 2, 2, p.found[:0])
	if len(got) != 1 {
		t.Fatalf("%d candidates", len(got))
	}
	e := float32(math.E)
	want := candidate{
		score:  0.72,
		box:    [4]float32{(52 - 8*e) * 2, (40 - 8) * 2, 32 * e, 32},
		points: [10]float32{96, 64, 128, 80, 64, 32, 112, 80, 160, 160}, landmarks: true,
	}
	for k := range want.box {
		if math.Abs(float64(got[0].box[k]-want.box[k])) > 1e-3 {
			t.Errorf("box %v, want %v", got[0].box, want.box)
			break
		}
	}
	if got[0].points != want.points || math.Abs(float64(got[0].score-want.score)) > 1e-6 {
		t.Errorf("got %+v, want %+v", got[0], want)
	}
	for _, c := range []struct {
		name     string
		cls, obj float32
		box      float32
		want     int
	}{
		{"at the threshold", 0.6, 0.6, 0, 1}, {"below", 0.6, 0.59, 0, 0}, {"over 1 counts as 1", 5, 0.4, 0, 1},
		{"both negative", -1, -1, 0, 0}, {"not a number", float32(math.NaN()), 1, 0, 0}, {"endless box", 1, 1, 1e4, 0},
	} {
		io.out[1][i], io.out[4][i], io.out[7][4*i+2] = c.cls, c.obj, c.box
		if got := yn.cells(yn.scales[1], io, 2, 2, p.found[:0]); len(got) != c.want {
			t.Errorf("%s: %d candidates, want %d", c.name, len(got), c.want)
		}
	}
}

func TestCandidatesAreBounded(t *testing.T) {
	p := newFake(t, &fakeRuntime{embed: ones, detect: func(io *fakeIO) error {
		for col := range 40 {
			for row := range 40 {
				plant(io, col, row, 0.9, 25)
			}
		}
		return nil
	}})
	r := p.NewResult()
	if err := p.Process(t.Context(), greyFrame(320, 320), r); err != nil {
		t.Fatal(err)
	}
	if r.Seen == 0 || r.Seen > maxCandidates || cap(p.found) != maxCandidates {
		t.Errorf("%d seen, room for %d", r.Seen, cap(p.found))
	}
}

func TestSuppress(t *testing.T) {
	box := func(x, y, w, h, score float32) candidate { return candidate{box: [4]float32{x, y, w, h}, score: score} }
	for _, c := range []struct {
		name string
		in   []candidate
		want []float32 // scores kept
	}{
		{"nothing", nil, nil},
		{"apart", []candidate{box(0, 0, 10, 10, 0.7), box(20, 0, 10, 10, 0.9)}, []float32{0.9, 0.7}},
		{"same place", []candidate{box(0, 0, 10, 10, 0.7), box(1, 0, 10, 10, 0.9), box(0, 1, 10, 10, 0.8)}, []float32{0.9}},
		{"touching", []candidate{box(0, 0, 10, 10, 0.9), box(10, 0, 10, 10, 0.8)}, []float32{0.9, 0.8}},
		{"overlap below the limit", []candidate{box(0, 0, 10, 10, 0.9), box(6, 0, 10, 10, 0.8)}, []float32{0.9, 0.8}}, // 40/160
		{"overlap over the limit", []candidate{box(0, 0, 10, 10, 0.9), box(5, 0, 10, 10, 0.8)}, []float32{0.9}},       // 50/150
		{"the weakest spans two", []candidate{box(0, 0, 10, 10, 0.9), box(5, 0, 10, 10, 0.7), box(12, 0, 10, 10, 0.8)}, []float32{0.9, 0.8}},
		{"a chain", []candidate{box(0, 0, 10, 10, 0.9), box(5, 0, 10, 10, 0.8), box(10, 0, 10, 10, 0.7)}, []float32{0.9, 0.7}}, // the middle one goes and does not count
		{"no area", []candidate{box(5, 5, 0, 0, 0.9), box(5, 5, 0, 0, 0.8)}, []float32{0.9, 0.8}},
	} {
		got := suppress(c.in, 0.3)
		ok := len(got) == len(c.want)
		for i := 0; ok && i < len(got); i++ {
			ok = got[i].score == c.want[i]
		}
		if !ok {
			t.Errorf("%s: %+v, want scores %v", c.name, got, c.want)
		}
	}
}

func TestProcessErrors(t *testing.T) {
	broken := errors.New("broken")
	one := func(io *fakeIO) error { plant(io, 10, 10, 0.9, 40); plant(io, 30, 30, 0.9, 30); return nil }
	ctx, cancel := context.WithCancel(t.Context())
	ready := false // the warm-up has passed
	for _, c := range []struct {
		name          string
		detect, embed func(io *fakeIO) error
		want          error
		text          string
	}{
		{"detector fails", func(io *fakeIO) error {
			if ready {
				return broken
			}
			return nil
		}, ones, broken, "detect"},
		{"embedder fails at the second face", one, func(io *fakeIO) error {
			if ready && io.runs > 4 {
				return broken
			}
			return ones(io)
		}, broken, "embed"},
		{"embedding of zeros", one, func(io *fakeIO) error { return nil }, nil, "zeros"},
		{"embedding of no numbers", one, func(io *fakeIO) error { io.out[0][5] = float32(math.NaN()); return nil }, nil, "not numbers"},
		{"context ends in the detector", func(io *fakeIO) error {
			if ready {
				cancel()
			}
			return one(io)
		}, ones, context.Canceled, ""},
	} {
		ready = false
		p := newFake(t, &fakeRuntime{detect: c.detect, embed: c.embed})
		ready = true
		r := p.NewResult()
		r.Faces = append(r.Faces, Face{Score: 1}) // left from a frame before
		err := p.Process(ctx, greyFrame(320, 320), r)
		if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.name, err)
		}
		if len(r.Faces) != 0 {
			t.Errorf("%s: %d faces are left in the result", c.name, len(r.Faces))
		}
		for _, v := range r.values {
			if v != 0 {
				t.Errorf("%s: a template is left in the result", c.name)
				break
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	fine := func(*fakeIO) error { return nil }
	stage := func(name string, change func(*infer.Stage)) func(*infer.Manifest) {
		return func(m *infer.Manifest) { change(m.Stage(name)) }
	}
	params := func(s string) json.RawMessage { return json.RawMessage(s) }
	for _, c := range []struct {
		name   string
		change func(*infer.Manifest)
		want   string
	}{
		{"no embed", stage("embed", func(s *infer.Stage) { s.Name = "other" }), `"embed" is missing`},
		{"no quality", stage("quality", func(s *infer.Stage) { s.Name = "other" }), `"quality" is missing`},
		{"detect without a model", stage("detect", func(s *infer.Stage) { s.File, s.Inputs, s.Outputs = "", nil, nil }), "stage detect"},
		{"embed without a model", stage("embed", func(s *infer.Stage) { s.File, s.Inputs, s.Outputs = "", nil, nil }), "stage embed"},
		{"detect without pre", stage("detect", func(s *infer.Stage) { s.Pre = nil }), "letterbox"},
		{"other post", stage("detect", func(s *infer.Stage) { s.Post.Name = "ssd" }), "yunet"},
		{"unknown parameter", stage("detect", func(s *infer.Stage) { s.Post.Params = params(`{"score":0.6,"iou":0.3,"top":5}`) }), "top"},
		{"score of 0", stage("detect", func(s *infer.Stage) { s.Post.Params = params(`{"iou":0.3}`) }), "score"},
		{"std of 0", stage("detect", func(s *infer.Stage) { s.Pre.Params = params(`{"order":"BGR"}`) }), "std"},
		{"order of the channels", stage("detect", func(s *infer.Stage) { s.Pre.Params = params(`{"order":"GBR","std":[1,1,1]}`) }), "order"},
		{"input of another form", stage("detect", func(s *infer.Stage) { s.Inputs[0].Shape = []int64{1, 3, 320, 300} }), "multiples of 32"},
		{"input of one channel", stage("detect", func(s *infer.Stage) { s.Inputs[0].Shape = []int64{1, 1, 320, 320} }), "[1,3,H,W]"},
		{"output missing", stage("detect", func(s *infer.Stage) { s.Outputs[7].Name = "box" }), "bbox_16"},
		{"output short", stage("detect", func(s *infer.Stage) { s.Outputs[11].Shape = []int64{1, 100, 8} }), "kps_32"},
		{"align without pre", stage("align", func(s *infer.Stage) { s.Pre = nil }), "similarity5"},
		{"crop too large", stage("align", func(s *infer.Stage) { s.Pre.Params = params(`{"size":4096}`) }), "size 4096"},
		{"crop of another size", stage("align", func(s *infer.Stage) { s.Pre.Params = params(`{"size":96}`) }), "96x96"},
		{"embed without post", stage("embed", func(s *infer.Stage) { s.Post = nil }), `"l2"`},
		{"another dimension", func(m *infer.Manifest) { m.Template.Dimension = 512 }, "512"},
	} {
		m, rt := fakeModel(t), &fakeRuntime{detect: fine, embed: fine}
		c.change(m.Manifest)
		p, err := New(t.Context(), rt, m)
		if err == nil || p != nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), m.Manifest.ID) {
			t.Errorf("%s: %v, want an error about %q", c.name, err, c.want)
		}
		if rt.opened != rt.closed {
			t.Errorf("%s: %d of %d engines and IOs were closed", c.name, rt.closed, rt.opened)
		}
	}
}

func TestNewWarmsUp(t *testing.T) {
	broken := errors.New("node 7")
	for name, rt := range map[string]*fakeRuntime{
		"detect": {detect: func(*fakeIO) error { return broken }, embed: ones},
		"embed":  {detect: func(*fakeIO) error { return nil }, embed: func(*fakeIO) error { return broken }},
	} {
		_, err := New(t.Context(), rt, fakeModel(t))
		if !errors.Is(err, broken) || !strings.Contains(err.Error(), "stage "+name) || !strings.Contains(err.Error(), "cannot be used") || rt.opened != rt.closed {
			t.Errorf("%s: %v (%d of %d closed)", name, err, rt.closed, rt.opened)
		}
	}
}

func TestQualityComponents(t *testing.T) {
	for _, c := range []struct {
		name string
		p    [10]float32
		want float32
	}{
		{"nose between the eyes", [10]float32{0, 0, 10, 0, 5, 8}, 1},
		{"nose under the right eye", [10]float32{0, 0, 10, 0, 0, 8}, 0},
		{"nose beyond the left eye", [10]float32{0, 0, 10, 0, 30, 8}, 0},
		{"halfway", [10]float32{0, 0, 10, 0, 2.5, 8}, 0.5},
		{"tilted head", [10]float32{0, 0, 0, 10, -8, 5}, 1},
		{"eyes in one place", [10]float32{3, 3, 3, 3, 5, 5}, 0},
		{"far beyond", [10]float32{-3e38, 0, 3e38, 0, 0, 3e38}, 0},
	} {
		if got := frontal(&c.p); math.Abs(float64(got-c.want)) > 1e-6 {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	nan := float32(math.NaN())
	for _, c := range []struct{ v, want float32 }{{0, 0}, {4, 0}, {32, 0.5}, {60, 1}, {1000, 1}, {nan, 0}} {
		if got := ramp(c.v, sharpLow, sharpHigh); got != c.want {
			t.Errorf("ramp of %v: %v, want %v", c.v, got, c.want)
		}
	}
}

func TestStatistics(t *testing.T) {
	n := kernels.Norm{Mean: [3]float32{1, 100, 1}, InvStd: [3]float32{1, 0.5, 1}}
	const w, h = 40, 40
	crop := make([]float32, 3*w*h)
	green := crop[w*h : 2*w*h]
	set := func(f func(x, y int) float32) {
		for i := range green {
			green[i] = (f(i%w, i/w) - n.Mean[1]) * n.InvStd[1]
		}
	}
	for _, c := range []struct {
		name           string
		f              func(x, y int) float32
		mean, dev, lap float32
	}{
		{"flat", func(x, y int) float32 { return 77 }, 77, 0, 0},
		{"a slope is not sharp", func(x, y int) float32 { return float32(3*x + 2*y) }, -1, -1, 0},
		{"a chequer is", func(x, y int) float32 { return float32(100 + 20*((x+y)%2*2-1)) }, 100, 20, 160 * 160},
	} {
		set(c.f)
		mean, dev, lap := newExaminer(w, &n).statistics(crop)
		if c.mean >= 0 && (math.Abs(float64(mean-c.mean)) > 0.05 || math.Abs(float64(dev-c.dev)) > 0.05) || math.Abs(float64(lap-c.lap)) > 0.05 {
			t.Errorf("%s: mean %v deviation %v sharpness %v, want %v %v %v", c.name, mean, dev, lap, c.mean, c.dev, c.lap)
		}
	}
}
