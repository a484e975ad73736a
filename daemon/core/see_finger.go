package core

import (
	"context"
	"fmt"
	"slices"

	"vigil/infer"
	"vigil/infer/finger"
	"vigil/kernels/minutiae"
	"vigil/sensors"
	"vigil/store"
)

// fingerSight is the recogniser of fingers: one at most in a frame.
type fingerSight struct {
	*finger.Pipeline
	result *finger.Result
	seen   []presentation
}

func newFingerSight(p *finger.Pipeline) *fingerSight {
	return &fingerSight{Pipeline: p, result: p.NewResult(), seen: make([]presentation, 0, 1)}
}

// fingerComparer is how galleries of fingers score.
func fingerComparer() store.Comparer { return minutiae.NewMatcher() }

// see implements recogniser.
func (s *fingerSight) see(ctx context.Context, f *sensors.Frame, dpi float64) ([]presentation, []infer.Timing, error) {
	s.seen = s.seen[:0]
	r := s.result
	if err := s.Process(ctx, f, dpi, r); err != nil {
		return nil, nil, err
	}
	if r.Present {
		s.seen = append(s.seen, presentation{
			box: [4]float32{0, 0, float32(f.Width), float32(f.Height)}, values: r.Values, scale: 1,
			quality: r.Quality.Unified, advice: fingerAdvice(&r.Quality), guidance: string(r.Quality.Components.Guidance()),
			parts: (*fingerQuality)(&r.Quality.Components),
		})
	}
	return s.seen, r.Timings[:], nil
}

// fingerScorer scores as galleries of fingers do.
func fingerScorer() (score func(a, b *sample) float32, done func()) {
	m := minutiae.NewMatcher()
	return func(a, b *sample) float32 {
		if m.SetProbe(a.values) != nil {
			return 0
		}
		return m.Score(b.values)
	}, m.Wipe
}

// checkPicture implements recogniser.
func (s *fingerSight) checkPicture(ctx context.Context, i int) (*sensors.Frame, error) {
	return checkPrint(ctx, i)
}

// probe implements recogniser.
func (s *fingerSight) probe(ctx context.Context, f *sensors.Frame) (sample, error) {
	defer s.result.Wipe()
	if err := s.Process(ctx, f, 0, s.result); err != nil {
		return sample{}, err
	}
	if !s.result.Present {
		return sample{}, fmt.Errorf("%w: a print shows no finger", ErrDisagrees)
	}
	return sample{values: slices.Clone(s.result.Values), scale: 1, quality: s.result.Quality.Unified}, nil
}

func (s *fingerSight) wipe() {
	s.result.Wipe()
	s.seen = s.seen[:0]
}

// fingerAdvice names the worst component of a quality in words for the person at the reader.
func fingerAdvice(q *finger.Quality) string {
	switch q.Unified {
	case q.Area:
		return "put more of the finger on the reader"
	case q.Legibility:
		return "clean the reader and the finger, and press a little"
	}
	return "put the middle of the fingertip on the reader"
}
