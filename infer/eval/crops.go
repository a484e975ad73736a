package eval

import (
	"context"
	"errors"

	"vigil/infer/face"
	"vigil/sensors"
)

// Embedder returns an extractor for the embedder alone: pictures that are aligned crops already (of just its input's size)
// are taken as they are, of others the face nearest to the centre is aligned first. The pipeline serves one Run at a time
// and stays the caller's.
func Embedder(pipe *face.Pipeline, decode func(ctx context.Context, path string) (*sensors.Frame, error)) Extractor {
	return func(ctx context.Context, path string) (Template, error) {
		f, err := decode(ctx, path)
		if err != nil {
			return Template{}, err
		}
		defer f.Release()
		t := Template{Values: make([]int8, pipe.Dimension())}
		t.Scale, err = pipe.EmbedFrame(ctx, t.Values, f)
		if errors.Is(err, face.ErrNoFace) {
			err = ErrNoFace
		}
		return t, err
	}
}
