package eval

import (
	"context"
	"fmt"

	"vigil/infer/face"
	"vigil/kernels"
	"vigil/sensors"
)

// Decoder gives the frame of a picture's path; the caller releases it.
type Decoder func(ctx context.Context, path string) (*sensors.Frame, error)

// faces is the face pipeline as a system under test.
type faces struct {
	pipe   *face.Pipeline
	decode Decoder
	result *face.Result
}

// vector is the data of a face's template: symmetric int8 and the scale that makes it unit length.
type vector struct {
	values []int8
	scale  float32
}

// Faces is the face pipeline over pictures of one person each: of several faces the one nearest to the picture's centre,
// as LFW's pictures are cut. decode gives the frame of a picture's path; it is released here. The pipeline serves one
// evaluation at a time and stays the caller's.
func Faces(pipe *face.Pipeline, decode Decoder) Extractor {
	return &faces{pipe: pipe, decode: decode, result: pipe.NewResult()}
}

func (s *faces) Extract(ctx context.Context, path string) (Template, error) {
	f, err := s.decode(ctx, path)
	if err != nil {
		return Template{}, err
	}
	defer f.Release()
	if err := s.pipe.Process(ctx, f, s.result); err != nil {
		return Template{}, err
	}
	fc := central(s.result.Faces, f.Width, f.Height)
	if fc == nil {
		return Template{}, ErrNoFace
	}
	return Template{Data: vector{append([]int8(nil), fc.Values...), fc.Scale}, Quality: float64(fc.Quality.Unified)}, nil
}

// Compare is the cosine, -1 to 1.
func (s *faces) Compare(a, b Template) float64 {
	x, y := a.Data.(vector), b.Data.(vector)
	var dot [1]int32
	kernels.DotRows(dot[:], x.values, len(x.values), y.values)
	return float64(float32(dot[0]) * x.scale * y.scale)
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

// livenessOf is the face pipeline as a presentation attack detector under test.
type livenessOf struct {
	faces
	score func(f *face.Face) (float64, bool)
}

// FaceLiveness is the face pipeline's liveness over pictures of one person each, chosen as by Faces. score reads it from
// a face; false ends the evaluation, since the pipeline then measures none.
func FaceLiveness(pipe *face.Pipeline, decode Decoder, score func(f *face.Face) (float64, bool)) Liveness {
	return &livenessOf{faces{pipe: pipe, decode: decode, result: pipe.NewResult()}, score}
}

func (s *livenessOf) Liveness(ctx context.Context, path string) (float64, error) {
	f, err := s.decode(ctx, path)
	if err != nil {
		return 0, err
	}
	defer f.Release()
	if err := s.pipe.Process(ctx, f, s.result); err != nil {
		return 0, err
	}
	fc := central(s.result.Faces, f.Width, f.Height)
	if fc == nil {
		return 0, ErrNoFace
	}
	v, ok := s.score(fc)
	if !ok {
		return 0, fmt.Errorf("bundle %s has no liveness stage: name one that has", s.pipe.ModelID())
	}
	return v, nil
}
