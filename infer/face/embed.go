package face

import (
	"context"
	"errors"
	"fmt"

	"vigil/infer"
	"vigil/kernels"
)

// arcface holds the five points of an aligned face of 112x112 pixels: the reference of InsightFace's ArcFace, which
// nearly all public embedders are trained on. Order as in Face.Points.
var arcface = [10]float32{38.2946, 51.6963, 73.5318, 51.5014, 56.0252, 71.7366, 41.5493, 92.3655, 70.7299, 92.2041}

// aligner computes where the pixels of an aligned face lie in the frame.
type aligner struct {
	w, h   int
	target [10]float32
}

// alignParams are those of the pre-processing "similarity5".
type alignParams struct {
	Size int `json:"size"` // pixels of the square crop; the reference points scale with it
}

func newAligner(s *infer.Stage) (*aligner, error) {
	p := alignParams{Size: 112}
	if s.Pre == nil || s.Pre.Name != "similarity5" {
		return nil, fmt.Errorf("stage %s: needs pre \"similarity5\"", s.Name)
	}
	if err := s.Pre.Decode(&p); err != nil {
		return nil, fmt.Errorf("stage %s: %w", s.Name, err)
	}
	if p.Size < 32 || p.Size > 512 {
		return nil, fmt.Errorf("stage %s: size %d: 32 to 512", s.Name, p.Size)
	}
	a := &aligner{w: p.Size, h: p.Size}
	for i, v := range arcface {
		a.target[i] = v * float32(p.Size) / 112
	}
	return a, nil
}

// transform returns the map from crop to frame; false if the points span no area.
func (a *aligner) transform(points *[10]float32) (kernels.Affine, bool) {
	m, ok := kernels.Similarity(points[:], a.target[:])
	if !ok {
		return m, false
	}
	return m.Invert()
}

// embedder turns the aligned crop into a template.
type embedder struct {
	eng    infer.Engine
	io     infer.IO
	norm   kernels.Norm
	mirror bool
	size   int       // pixels per side
	sum    []float32 // embedding of the crop and its mirror image
}

// l2Params are those of the post-processing "l2".
type l2Params struct {
	Mirror bool `json:"mirror"` // add the embedding of the mirrored crop before normalising: twice the time, a little accuracy
}

func newEmbedder(ctx context.Context, rt infer.Runtime, m *infer.Model, s *infer.Stage) (*embedder, error) {
	e := &embedder{sum: make([]float32, m.Manifest.Template.Dimension)}
	if err := e.configure(m, s); err != nil {
		return nil, fmt.Errorf("stage %s: %w", s.Name, err)
	}
	var err error
	if e.eng, e.io, err = load(ctx, rt, m, s); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

func (e *embedder) configure(m *infer.Model, s *infer.Stage) error {
	if s.Pre == nil || s.Pre.Name != "normalize" || s.Post == nil || s.Post.Name != "l2" {
		return errors.New("needs pre \"normalize\" and post \"l2\"")
	}
	var np letterboxParams
	var lp l2Params
	if err := errors.Join(s.Pre.Decode(&np), s.Post.Decode(&lp)); err != nil {
		return err
	}
	var err error
	if e.norm, err = np.norm(); err != nil {
		return err
	}
	e.mirror = lp.Mirror
	a, err := newAligner(m.Manifest.Stage(StageAlign))
	if err != nil {
		return err
	}
	e.size = a.w
	if len(s.Inputs) != 1 || len(s.Outputs) != 1 {
		return fmt.Errorf("needs a model with one input and one output, it has %d and %d", len(s.Inputs), len(s.Outputs))
	}
	if s.Inputs[0].Elements() != 3*a.w*a.h {
		return fmt.Errorf("input %v does not hold an aligned crop of %dx%d", s.Inputs[0], a.w, a.h)
	}
	if s.Outputs[0].Elements() != len(e.sum) {
		return fmt.Errorf("output %v does not fit template.dimension %d", s.Outputs[0], len(e.sum))
	}
	return nil
}

// run embeds the crop that lies in the input tensor and writes the template. The crop is gone afterwards.
func (e *embedder) run(ctx context.Context, values []int8) (scale float32, err error) {
	if err := e.io.Run(ctx); err != nil {
		return 0, fmt.Errorf("embed: %w", err)
	}
	defer clear(e.sum)
	copy(e.sum, e.io.Output(0))
	if e.mirror {
		flip(e.io.Input(0), e.size)
		if err := e.io.Run(ctx); err != nil {
			return 0, fmt.Errorf("embed: %w", err)
		}
		for i, v := range e.io.Output(0) {
			e.sum[i] += v
		}
	}
	if scale = kernels.QuantizeUnit(values, e.sum); scale == 0 {
		return 0, errors.New("embed: the model answered with zeros or values that are not numbers")
	}
	return scale, nil
}

// flip mirrors every row of a planar picture.
func flip(t []float32, width int) {
	for ; len(t) >= width; t = t[width:] {
		for i, j := 0, width-1; i < j; i, j = i+1, j-1 {
			t[i], t[j] = t[j], t[i]
		}
	}
}

func (e *embedder) close() error {
	clear(e.sum)
	return closeBoth(e.io, e.eng)
}
