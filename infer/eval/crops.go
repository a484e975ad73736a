package eval

import (
	"context"
	"errors"
	"math"

	"vigil/infer/face"
)

// crops is the embedder alone as a system under test.
type crops struct{ faces }

// Embedder returns an extractor for the embedder alone: pictures that are aligned crops already (of just its input's size)
// are taken as they are, of others the face nearest to the centre is aligned first. The pipeline serves one evaluation at a
// time and stays the caller's.
func Embedder(pipe *face.Pipeline, decode Decoder) Extractor {
	return &crops{faces{pipe: pipe, decode: decode}}
}

func (s *crops) Extract(ctx context.Context, path string) (Template, error) {
	f, err := s.decode(ctx, path)
	if err != nil {
		return Template{}, err
	}
	defer f.Release()
	v := vector{values: make([]int8, s.pipe.Dimension())}
	v.scale, err = s.pipe.EmbedFrame(ctx, v.values, f)
	if errors.Is(err, face.ErrNoFace) {
		err = ErrNoFace
	}
	return Template{Data: v, Quality: math.NaN()}, err
}
