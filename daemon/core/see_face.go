package core

import (
	"context"

	"vigil/infer"
	"vigil/infer/face"
	"vigil/kernels"
	"vigil/sensors"
)

// faceSight is the recogniser of faces.
type faceSight struct {
	*face.Pipeline
	result *face.Result
	seen   []presentation
}

func newFaceSight(p *face.Pipeline) *faceSight {
	return &faceSight{Pipeline: p, result: p.NewResult(), seen: make([]presentation, 0, face.MaxFaces)}
}

// see implements recogniser; the resolution of a camera means nothing.
func (s *faceSight) see(ctx context.Context, f *sensors.Frame, _ float64) ([]presentation, []infer.Timing, error) {
	s.seen = s.seen[:0]
	if err := s.Process(ctx, f, s.result); err != nil {
		return nil, nil, err
	}
	for i := range s.result.Faces {
		f := &s.result.Faces[i]
		s.seen = append(s.seen, presentation{
			box: f.Box, values: f.Values, scale: f.Scale, quality: f.Quality.Unified, advice: faceAdvice(&f.Quality),
			guidance: string(f.Quality.Components.Guidance()), parts: (*faceQuality)(&f.Quality.Components),
			liveness: f.Liveness, hasLiveness: f.HasLiveness, attack: f.Attack,
		})
	}
	return s.seen, s.result.Timings[:], nil
}

// faceScorer scores by the cosine.
func faceScorer() (score func(a, b *sample) float32, done func()) {
	return func(a, b *sample) float32 {
		var dot [1]int32
		kernels.DotRows(dot[:], a.values, len(a.values), b.values)
		return float32(dot[0]) * a.scale * b.scale
	}, func() {}
}

// checkPicture implements recogniser.
func (s *faceSight) checkPicture(_ context.Context, i int) (*sensors.Frame, error) {
	return checkCrop(i, s.CropSize()), nil
}

// probe implements recogniser: the embedding of a crop that the check set takes for aligned.
func (s *faceSight) probe(ctx context.Context, f *sensors.Frame) (sample, error) {
	t := sample{values: make([]int8, s.Dimension()), quality: 1}
	var err error
	t.scale, err = s.EmbedFrame(ctx, t.values, f)
	return t, err
}

func (s *faceSight) wipe() {
	s.result.Wipe()
	s.seen = s.seen[:0]
}

// faceAdvice names the worst component of a quality in words for the person in front of the camera.
func faceAdvice(q *face.Quality) string {
	switch q.Unified {
	case q.Size:
		return "come closer"
	case q.Pose:
		return "look straight into the camera"
	case q.Exposure:
		return "more even light is needed"
	case q.Contrast:
		return "the picture has too little contrast"
	}
	return "hold still, the picture is blurred"
}
