package face

import (
	"context"
	"errors"
	"fmt"

	"vigil/infer"
	"vigil/kernels"
	"vigil/kernels/cpu"
)

// embedder turns the aligned crop into a template.
type embedder struct {
	*infer.Loaded
	stage  *infer.Stage
	norm   kernels.Norm
	mirror bool      // add the embedding of the mirrored crop before normalising: twice the time, a little accuracy
	size   int       // pixels per side
	sum    []float32 // embedding of the crop and its mirror image
}

var embedPres = infer.Registry[kernels.Norm]{"normalize": readNorm}

// embedPosts give whether the mirrored crop is embedded too.
var embedPosts = infer.Registry[bool]{"l2": func(s *infer.Step) (bool, error) {
	var p struct {
		Mirror bool `json:"mirror"`
	}
	err := s.Decode(&p)
	return p.Mirror, err
}}

func newEmbedder(s *infer.Stage, a *aligner, dimension int) (*embedder, error) {
	e := &embedder{stage: s, size: a.size, sum: make([]float32, dimension)}
	var err error
	if e.norm, err = embedPres.Make("pre of stage "+s.Name, s.Pre); err != nil {
		return nil, err
	}
	if e.mirror, err = embedPosts.Make("post of stage "+s.Name, s.Post); err != nil {
		return nil, err
	}
	switch {
	case len(s.Inputs) != 1 || len(s.Outputs) != 1:
		err = fmt.Errorf("needs a model with one input and one output, it has %d and %d", len(s.Inputs), len(s.Outputs))
	case s.Inputs[0].Elements() != 3*a.size*a.size:
		err = fmt.Errorf("input %v does not hold an aligned crop of %dx%d", s.Inputs[0], a.size, a.size)
	case s.Outputs[0].Elements() != dimension:
		err = fmt.Errorf("output %v does not fit template.dimension %d", s.Outputs[0], dimension)
	}
	if err != nil {
		return nil, fmt.Errorf("stage %s: %w", s.Name, err)
	}
	return e, nil
}

// run embeds the crop that lies in the input tensor and writes the template. The crop is gone afterwards.
func (e *embedder) run(ctx context.Context, values []int8) (scale float32, err error) {
	if err := e.IO.Run(ctx); err != nil {
		return 0, fmt.Errorf("embed: %w", err)
	}
	defer clear(e.sum)
	copy(e.sum, e.IO.Output(0))
	if e.mirror {
		cpu.Mirror(e.IO.Input(0), 3*e.size, e.size)
		if err := e.IO.Run(ctx); err != nil {
			return 0, fmt.Errorf("embed: %w", err)
		}
		for i, v := range e.IO.Output(0) {
			e.sum[i] += v
		}
	}
	if scale = kernels.QuantizeUnit(values, e.sum); scale == 0 {
		return 0, errors.New("embed: the model answered with zeros or values that are not numbers")
	}
	return scale, nil
}

func (e *embedder) close() error {
	clear(e.sum)
	return e.Close()
}
