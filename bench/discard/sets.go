package main

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"slices"

	"vigil/infer"
	"vigil/infer/builtin"
	"vigil/infer/face"
	"vigil/infer/finger"
	"vigil/infer/ort"
	"vigil/infer/preset"
	"vigil/kernels"
	"vigil/kernels/minutiae"
	"vigil/sensors"
	"vigil/sensors/picture"
)

// read decodes a file.
func read(ctx context.Context, pool *sensors.Pool, path string) (*sensors.Frame, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return picture.Decode(ctx, pool, data)
}

// pairUp lists the pairs of pictures of one subject and scores them.
func (s *study) pairUp(score func(a, b int) float64) {
	of := map[string][]int{}
	for i := range s.pictures {
		for _, j := range of[s.pictures[i].subject] {
			v := math.Inf(-1)
			if s.pictures[i].good != nil && s.pictures[j].good != nil {
				v = score(i, j)
			}
			s.pairs = append(s.pairs, mated{i, j, v})
		}
		of[s.pictures[i].subject] = append(of[s.pictures[i].subject], i)
	}
}

// faces are the open folds of LFW with the preset "face".
func faces(ctx context.Context, rt *ort.Runtime, data string) (s *study, err error) {
	manifest, err := preset.Load("face")
	if err != nil {
		return nil, err
	}
	m, err := infer.FromDir(os.DirFS(filepath.Join(data, "models")), manifest)
	if err != nil {
		return nil, err
	}
	p, err := face.New(ctx, rt, m)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	s = &study{title: "faces, LFW", measures: []string{"unified", "  sharpness", "  exposure", "  contrast", "  pose", "  size"}}
	s.thresholds = []float64{float64(manifest.Thresholds["verify"].Score), float64(manifest.Thresholds["identify"].Score)}
	for k := range face.Kinds {
		s.measures = append(s.measures, k.String())
	}
	paths, err := filepath.Glob(filepath.Join(data, "faces", "lfw", "*", "*.jpg"))
	if err != nil {
		return nil, err
	}
	type row struct {
		values []int8
		scale  float32
	}
	rows := make([]row, len(paths))
	pool, r := sensors.NewPool(1), p.NewResult()
	for i, path := range paths {
		f, err := read(ctx, pool, path)
		if err != nil {
			return nil, err
		}
		err = p.Process(ctx, f, r)
		w, h := f.Width, f.Height
		f.Release()
		if err != nil {
			return nil, err
		}
		one := shown{subject: filepath.Base(filepath.Dir(path))}
		if c := central(r.Faces, float64(w)/2, float64(h)/2); c != nil {
			one.good = faceMeasures(&c.Quality)
			rows[i] = row{slices.Clone(c.Values), c.Scale}
		}
		s.pictures = append(s.pictures, one)
	}
	s.pairUp(func(a, b int) float64 {
		var dot [1]int32
		kernels.DotRows(dot[:], rows[a].values, len(rows[a].values), rows[b].values)
		return float64(float32(dot[0]) * rows[a].scale * rows[b].scale)
	})
	return s, nil
}

// central is the face nearest to a point.
func central(list []face.Face, x, y float64) (best *face.Face) {
	least := math.Inf(1)
	for i := range list {
		b := &list[i].Box
		if d := math.Hypot(float64(b[0]+b[2]/2)-x, float64(b[1]+b[3]/2)-y); d < least {
			best, least = &list[i], d
		}
	}
	return best
}

// faceMeasures are in the order of study.measures. What a component measured serves, turned so that more is better, because its value
// ends at 100 for most pictures; of LuminanceMean, which is best in the middle, the value.
func faceMeasures(q *face.Quality) []float64 {
	out := []float64{float64(q.Unified), float64(q.Sharpness), float64(q.Exposure), float64(q.Contrast), float64(q.Pose), float64(q.Size)}
	for k, c := range q.Components {
		v := float64(c.Measured)
		switch face.Kind(k) {
		case face.UnderExposurePrevention, face.OverExposurePrevention:
			v = -v
		case face.HeadPoseYaw, face.HeadPosePitch, face.HeadPoseRoll:
			v = -math.Abs(v)
		case face.LuminanceMean:
			v = float64(c.Value)
		}
		out = append(out, v)
	}
	return out
}

// fvc are the sets of fingers with the resolution of their readers.
var fvc = []struct {
	name string
	dpi  float64
}{{"fvc2002_DB1_B", 500}, {"fvc2002_DB3_B", 500}, {"fvc2004_DB2_B", 500}, {"fvc2004_DB3_B", 512}}

// fingers are the open sets of FVC with the bundle in the binary.
func fingers(ctx context.Context, rt *ort.Runtime, data string) (s *study, err error) {
	m, err := builtin.Finger()
	if err != nil {
		return nil, err
	}
	p, err := finger.New(ctx, rt, m)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	s = &study{title: "fingers, FVC", measures: []string{"unified", "  area", "  legibility", "  minutiae"}}
	s.thresholds = []float64{float64(m.Manifest.Thresholds["verify"].Score)}
	for k := range finger.Kinds {
		s.measures = append(s.measures, k.String())
	}
	var rows [][]int8
	pool, r := sensors.NewPool(1), p.NewResult()
	for _, set := range fvc {
		paths, err := filepath.Glob(filepath.Join(data, "fingerprints", set.name, "*.png"))
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			f, err := read(ctx, pool, path)
			if err != nil {
				return nil, err
			}
			err = p.Process(ctx, f, set.dpi, r)
			f.Release()
			if err != nil {
				return nil, err
			}
			one := shown{subject: set.name + filepath.Base(path)[:3]}
			if r.Present {
				one.good = fingerMeasures(&r.Quality)
			}
			rows = append(rows, slices.Clone(r.Values))
			s.pictures = append(s.pictures, one)
		}
	}
	matcher := minutiae.NewMatcher()
	s.pairUp(func(a, b int) float64 {
		if matcher.SetProbe(rows[a]) != nil {
			return math.Inf(-1)
		}
		return float64(matcher.Score(rows[b]))
	})
	return s, nil
}

// fingerMeasures likewise; of Moisture, which is best in the middle, the value.
func fingerMeasures(q *finger.Quality) []float64 {
	out := []float64{float64(q.Unified), float64(q.Area), float64(q.Legibility), float64(q.Minutiae)}
	for k, c := range q.Components {
		v := float64(c.Measured)
		switch finger.Kind(k) {
		case finger.Position:
			v = -v
		case finger.Moisture:
			v = float64(c.Value)
		}
		out = append(out, v)
	}
	return out
}
