package eval

import (
	"context"

	"vigil/infer/face"
	"vigil/kernels"
	"vigil/sensors"
)

// Faces returns an extractor of the person that a picture is about: the face nearest to the picture's centre, as LFW's
// pictures are cut. decode gives the frame of a picture's path; it is released here. The pipeline serves one Run at a
// time and stays the caller's.
func Faces(pipe *face.Pipeline, decode func(ctx context.Context, path string) (*sensors.Frame, error)) Extractor {
	result := pipe.NewResult()
	return func(ctx context.Context, path string) (Template, error) {
		f, err := decode(ctx, path)
		if err != nil {
			return Template{}, err
		}
		defer f.Release()
		if err := pipe.Process(ctx, f, result); err != nil {
			return Template{}, err
		}
		fc := central(result.Faces, f.Width, f.Height)
		if fc == nil {
			return Template{}, ErrNoFace
		}
		return Template{Values: append([]int8(nil), fc.Values...), Scale: fc.Scale}, nil
	}
}

// central returns the face nearest to the centre of a picture; nil if there is none.
func central(faces []face.Face, w, h int) (best *face.Face) {
	least := float32(0)
	for i := range faces {
		b := faces[i].Box
		dx, dy := b[0]+b[2]/2-float32(w)/2, b[1]+b[3]/2-float32(h)/2
		if d := dx*dx + dy*dy; best == nil || d < least {
			best, least = &faces[i], d
		}
	}
	return best
}

// Cosine is the score of two templates.
func Cosine(a, b Template) float32 {
	var dot [1]int32
	kernels.DotRows(dot[:], a.Values, len(a.Values), b.Values)
	return float32(dot[0]) * a.Scale * b.Scale
}
