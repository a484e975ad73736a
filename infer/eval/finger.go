package eval

import (
	"context"
	"fmt"

	"vigil/infer/finger"
	"vigil/kernels/minutiae"
)

// ErrNoFinger is the failure to acquire of a picture without a finger.
var ErrNoFinger = fmt.Errorf("%w: no finger in the picture", ErrAcquire)

// fingers is the finger pipeline as a system under test.
type fingers struct {
	pipe    *finger.Pipeline
	decode  Decoder
	dpi     float64
	result  *finger.Result
	matcher *minutiae.Matcher
}

// Fingers is the finger pipeline over pictures of one print each, of the given resolution in pixels per inch (0 means
// finger.DPI). decode gives the frame of a picture's path; it is released here. The pipeline serves one evaluation at a
// time and stays the caller's.
func Fingers(pipe *finger.Pipeline, decode Decoder, dpi float64) Extractor {
	return &fingers{pipe: pipe, decode: decode, dpi: dpi, result: pipe.NewResult(), matcher: minutiae.NewMatcher()}
}

func (s *fingers) Extract(ctx context.Context, path string) (Template, error) {
	f, err := s.decode(ctx, path)
	if err != nil {
		return Template{}, err
	}
	defer f.Release()
	if err := s.pipe.Process(ctx, f, s.dpi, s.result); err != nil {
		return Template{}, err
	}
	t := Template{Quality: float64(s.result.Quality.Unified)}
	if !s.result.Present {
		return t, ErrNoFinger
	}
	t.Data = append([]int8(nil), s.result.Values...)
	return t, nil
}

// Compare is the score of kernels/minutiae, 0 to below 1.
func (s *fingers) Compare(a, b Template) float64 {
	if s.matcher.SetProbe(a.Data.([]int8)) != nil {
		return 0
	}
	return float64(s.matcher.Score(b.Data.([]int8)))
}
