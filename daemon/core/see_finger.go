package core

import (
	"context"

	"vigil/infer"
	"vigil/infer/finger"
	"vigil/kernels/minutiae"
	"vigil/sensors"
	"vigil/store"
)

// fingerSight is the recogniser of fingers: one at most in a frame.
type fingerSight struct {
	*finger.Pipeline
	result  *finger.Result
	seen    []presentation
	matcher *minutiae.Matcher
}

func newFingerSight(p *finger.Pipeline) *fingerSight {
	return &fingerSight{Pipeline: p, result: p.NewResult(), seen: make([]presentation, 0, 1), matcher: minutiae.NewMatcher()}
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
			quality: r.Quality.Unified, advice: fingerAdvice(&r.Quality),
		})
	}
	return s.seen, r.Timings[:], nil
}

// compare implements recogniser.
func (s *fingerSight) compare(a, b *sample) float32 {
	if s.matcher.SetProbe(a.values) != nil {
		return 0
	}
	defer s.matcher.Wipe()
	return s.matcher.Score(b.values)
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
