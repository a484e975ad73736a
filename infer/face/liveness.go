package face

import (
	"context"
	"errors"
	"fmt"
	"math"

	"vigil/infer"
	"vigil/kernels"
)

// liveness tells bona fide presentations from attacks (pictures, screens, masks before the camera): the weighted mean of
// the scores of one model or several, each looking at a crop of the frame of its own.
type liveness struct {
	models []liveModel
	least  float32 // below it a face is an attack; 0: nothing is
	skip   bool
}

// liveModel is one of the models.
type liveModel struct {
	*infer.Loaded
	stage    *infer.Stage
	crop     liveCrop
	w, h     int // pixels of the input
	bonaFide int // index among the outputs of the class of bona fide presentations
	weight   float32
}

// liveCrop says which part of the frame a model sees.
type liveCrop struct {
	norm kernels.Norm
	area bool // filter, see kernels.CropResize
	rect func(box [4]float32, width, height int, scale float64) kernels.Rect
	size float64 // scale of the box
}

var livenessPres = infer.Registry[liveCrop]{
	// box-inside enlarges the box about its centre; the scale is limited and the crop shifted so that it stays inside the
	// picture (minivision-ai/Silent-Face-Anti-Spoofing, src/generate_patches.py), and is stretched to the input.
	"box-inside": func(s *infer.Step) (liveCrop, error) { return readCrop(s, insideRect, false) },
	// box-reflect is a square of the longer side of the box, enlarged about its centre, with the picture's border
	// reflected where it reaches beyond (face-antispoof-onnx, src/inference/preprocess.py).
	"box-reflect": func(s *infer.Step) (liveCrop, error) { return readCrop(s, squareRect, true) },
}

func readCrop(s *infer.Step, rect func([4]float32, int, int, float64) kernels.Rect, area bool) (liveCrop, error) {
	var p struct {
		Scale float64 `json:"scale"`
		normParams
	}
	if err := s.Decode(&p); err != nil {
		return liveCrop{}, err
	}
	if !(p.Scale >= 1 && p.Scale <= 8) {
		return liveCrop{}, fmt.Errorf("scale %v: 1 to 8", p.Scale)
	}
	n, err := p.norm()
	return liveCrop{norm: n, area: area, rect: rect, size: p.Scale}, err
}

// livenessPosts give the index of the class of bona fide presentations.
var livenessPosts = infer.Registry[int]{"softmax": func(s *infer.Step) (int, error) {
	p := struct {
		BonaFide int `json:"bona_fide"`
	}{-1}
	if err := s.Decode(&p); err != nil {
		return 0, err
	}
	if p.BonaFide < 0 {
		return 0, errors.New("bona_fide: the index of the class of bona fide presentations is needed")
	}
	return p.BonaFide, nil
}}

// newLiveness configures the stages; nil if the bundle has none.
func newLiveness(m *infer.Manifest) (*liveness, error) {
	l := &liveness{}
	for _, s := range m.StagesOf(StageLiveness) {
		one, err := newLiveModel(s)
		if err != nil {
			return nil, err
		}
		l.models = append(l.models, one)
	}
	if len(l.models) == 0 {
		return nil, nil
	}
	var sum float32
	for i := range l.models {
		sum += l.models[i].weight
	}
	for i := range l.models {
		l.models[i].weight /= sum
	}
	return l, nil
}

func newLiveModel(s *infer.Stage) (m liveModel, err error) {
	m = liveModel{stage: s, weight: float32(s.Weight)}
	if m.weight == 0 {
		m.weight = 1
	}
	if m.crop, err = livenessPres.Make("pre of stage "+s.Name, s.Pre); err != nil {
		return m, err
	}
	if m.bonaFide, err = livenessPosts.Make("post of stage "+s.Name, s.Post); err != nil {
		return m, err
	}
	m.w, m.h, err = pictureInput(s)
	switch {
	case err != nil:
	case len(s.Outputs) != 1 || s.Outputs[0].Elements() < 2:
		err = errors.New("needs a model with one output of two classes or more")
	case m.bonaFide >= s.Outputs[0].Elements():
		err = fmt.Errorf("bona_fide %d: the model has %d classes", m.bonaFide, s.Outputs[0].Elements())
	}
	if err != nil {
		return m, fmt.Errorf("stage %s: %w", s.Name, err)
	}
	return m, nil
}

func (l *liveness) load(ctx context.Context, rt infer.Runtime, m *infer.Model) (err error) {
	for i := range l.models {
		if l.models[i].Loaded, err = infer.LoadStage(ctx, rt, m, l.models[i].stage); err != nil {
			return err
		}
	}
	return nil
}

// share takes the engines and the rule of another.
func (l *liveness) share(of *liveness) (err error) {
	l.least, l.skip = of.least, of.skip
	for i := range l.models {
		if l.models[i].Loaded, err = of.models[i].Share(); err != nil {
			return err
		}
	}
	return nil
}

// judge fills in the liveness of a face of the picture.
func (l *liveness) judge(ctx context.Context, im *kernels.Image, f *Face) error {
	var score float32
	for i := range l.models {
		m := &l.models[i]
		r := m.crop.rect(f.Box, im.Width, im.Height, m.crop.size)
		kernels.CropResize(m.IO.Input(0), m.w, m.h, im, r, m.crop.area, &m.crop.norm)
		if err := m.IO.Run(ctx); err != nil {
			return fmt.Errorf("%s: %w", m.stage.Name, err)
		}
		p, ok := softmax(m.IO.Output(0), m.bonaFide)
		if !ok {
			return fmt.Errorf("%s: the model answered with values that are not numbers", m.stage.Name)
		}
		score += m.weight * p
	}
	f.Liveness, f.HasLiveness = min(score, 1), true
	f.Attack = f.Liveness < l.least
	return nil
}

// softmax is the share of one class; false if it is no number.
func softmax(logits []float32, class int) (float32, bool) {
	var sum float64
	for _, v := range logits {
		sum += math.Exp(float64(v) - float64(logits[class]))
	}
	p := float32(1 / sum)
	return p, p >= 0 && p <= 1
}

// insideRect: see "box-inside". Edges are cut to whole pixels towards zero, as there.
func insideRect(box [4]float32, width, height int, scale float64) kernels.Rect {
	w, h := float64(width), float64(height)
	s := min((h-1)/float64(box[3]), (w-1)/float64(box[2]), scale)
	side := func(at, size, limit float64) (int, int) {
		lo := at + size/2 - size*s/2
		hi := lo + size*s
		if lo < 0 {
			lo, hi = 0, hi-lo
		}
		if hi > limit {
			lo, hi = lo-(hi-limit), limit
		}
		return int(lo), int(hi) - int(lo)
	}
	var r kernels.Rect
	r.X, r.W = side(float64(box[0]), float64(box[2]), w)
	r.Y, r.H = side(float64(box[1]), float64(box[3]), h)
	return r
}

// squareRect: see "box-reflect".
func squareRect(box [4]float32, _, _ int, scale float64) kernels.Rect {
	side := float64(max(box[2], box[3])) * scale
	x := float64(box[0]) + float64(box[2])/2 - side/2
	y := float64(box[1]) + float64(box[3])/2 - side/2
	return kernels.Rect{X: int(x), Y: int(y), W: int(side), H: int(side)}
}

func (l *liveness) close() error {
	var errs []error
	for i := range l.models {
		errs = append(errs, l.models[i].Close())
	}
	return errors.Join(errs...)
}
