package face_test

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vigil/infer/face"
	"vigil/infer/infertest"
	"vigil/sensors"
)

// every lists every fifth picture of LFW from the first-th on.
func every(t *testing.T, fifth, first int) (paths []string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(infertest.Data(t, "faces", "lfw"), "*", "*.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	for i := first; i < len(all); i += fifth {
		paths = append(paths, all[i])
	}
	return paths
}

// central is the face nearest to a point; nil if there is none.
func central(r *face.Result, x, y float64) *face.Face {
	var best *face.Face
	least := math.Inf(1)
	for i := range r.Faces {
		b := &r.Faces[i].Box
		if d := math.Hypot(float64(b[0]+b[2]/2)-x, float64(b[1]+b[3]/2)-y); d < least {
			best, least = &r.Faces[i], d
		}
	}
	return best
}

// fault is a way to spoil a picture by more and more.
type fault struct {
	name   string
	levels []float64 // the first one changes nothing
	spoil  func(src *sensors.Frame, f *face.Face, level float64) *sensors.Frame
	of     []face.Kind     // that fall with it
	codes  []face.Guidance // of which the strongest level gives one
	share  float64         // of the pictures, at least
	moves  []face.Kind     // that also move, for a reason
}

var faults = []fault{
	{
		name: "turned in the plane (degrees)", levels: []float64{0, 10, 20, 30, 45},
		spoil: func(src *sensors.Frame, f *face.Face, v float64) *sensors.Frame {
			return rotated(src, float64(f.Box[0]+f.Box[2]/2), float64(f.Box[1]+f.Box[3]/2), v)
		},
		of: []face.Kind{face.HeadPoseRoll}, codes: []face.Guidance{face.HeadUpright}, share: 0.9,
		moves: []face.Kind{face.IlluminationUniformity, face.MarginAboveOfTheFaceImage, face.MarginBelowOfTheFaceImage}, // half of the turn stays in the crop
	},
	{
		name: "farther (times)", levels: []float64{1, 1.25, 1.6, 2, 2.5},
		spoil: func(src *sensors.Frame, _ *face.Face, v float64) *sensors.Frame { return scaled(src, v) },
		of:    []face.Kind{face.InterEyeDistance}, codes: []face.Guidance{face.ComeCloser}, share: 0.95,
		moves: []face.Kind{face.Sharpness},
	},
	{
		name: "blurred (pixels)", levels: []float64{0, 1, 2, 3, 4},
		spoil: func(src *sensors.Frame, _ *face.Face, v float64) *sensors.Frame { return blurred(src, v) },
		of:    []face.Kind{face.Sharpness}, codes: []face.Guidance{face.HoldStill}, share: 0.95,
	},
	{
		name: "less light (times)", levels: []float64{1, 0.5, 0.25, 0.125, 0.06},
		spoil: func(src *sensors.Frame, _ *face.Face, v float64) *sensors.Frame { return exposed(src, v) },
		of:    []face.Kind{face.UnderExposurePrevention, face.LuminanceMean}, codes: []face.Guidance{face.MoreLight}, share: 0.95,
		moves: []face.Kind{face.DynamicRange, face.IlluminationUniformity},
	},
	{
		name: "more light (times)", levels: []float64{1, 2, 4, 6, 8},
		spoil: func(src *sensors.Frame, _ *face.Face, v float64) *sensors.Frame { return exposed(src, v) },
		of:    []face.Kind{face.OverExposurePrevention}, codes: []face.Guidance{face.LessLight}, share: 0.95,
		moves: []face.Kind{face.LuminanceMean, face.DynamicRange, face.IlluminationUniformity},
	},
	{
		name: "lit from one side (times)", levels: []float64{1, 0.6, 0.35, 0.2, 0.1},
		spoil: func(src *sensors.Frame, f *face.Face, v float64) *sensors.Frame {
			return shaded(src, float64(f.Points[0]+f.Points[2])/2, v)
		},
		of: []face.Kind{face.IlluminationUniformity}, codes: []face.Guidance{face.EvenLight}, share: 0.5,
		moves: []face.Kind{face.LuminanceMean, face.UnderExposurePrevention},
	},
	{
		name: "out at the left (of the box)", levels: []float64{0, 0.15, 0.3, 0.4},
		spoil: func(src *sensors.Frame, f *face.Face, v float64) *sensors.Frame {
			x := int(float64(f.Box[0]) + v*float64(f.Box[2]))
			if v == 0 {
				x = 0
			}
			return cropped(src, x, 0, src.Width-x, src.Height)
		},
		of: []face.Kind{face.LeftwardCropOfTheFaceImage}, codes: []face.Guidance{face.CentreFace}, share: 0.9,
	},
	{
		name: "out at the right (of the box)", levels: []float64{0, 0.15, 0.3, 0.4},
		spoil: func(src *sensors.Frame, f *face.Face, v float64) *sensors.Frame {
			w := int(float64(f.Box[0]) + (1-v)*float64(f.Box[2]))
			if v == 0 {
				w = src.Width
			}
			return cropped(src, 0, 0, w, src.Height)
		},
		of: []face.Kind{face.RightwardCropOfTheFaceImage}, codes: []face.Guidance{face.CentreFace}, share: 0.9,
	},
	{
		name: "out at the top (of the box)", levels: []float64{0, 0.1, 0.2, 0.3},
		spoil: func(src *sensors.Frame, f *face.Face, v float64) *sensors.Frame {
			y := int(float64(f.Box[1]) + v*float64(f.Box[3]))
			if v == 0 {
				y = 0
			}
			return cropped(src, 0, y, src.Width, src.Height-y)
		},
		of: []face.Kind{face.MarginAboveOfTheFaceImage}, codes: []face.Guidance{face.CentreFace}, share: 0.9,
		moves: []face.Kind{face.LuminanceMean}, // the brow is gone
	},
	{
		name: "out at the bottom (of the box)", levels: []float64{0, 0.1, 0.2, 0.3},
		spoil: func(src *sensors.Frame, f *face.Face, v float64) *sensors.Frame {
			h := int(float64(f.Box[1]) + (1-v)*float64(f.Box[3]))
			if v == 0 {
				h = src.Height
			}
			return cropped(src, 0, 0, src.Width, h)
		},
		of: []face.Kind{face.MarginBelowOfTheFaceImage}, codes: []face.Guidance{face.CentreFace}, share: 0.9,
	},
	{
		name: "larger than the frame (of the box)", levels: []float64{0, 0.1, 0.2},
		spoil: func(src *sensors.Frame, f *face.Face, v float64) *sensors.Frame {
			if v == 0 {
				return src
			}
			x, y := float64(f.Box[0])+v*float64(f.Box[2]), float64(f.Box[1])+v*float64(f.Box[3])
			return cropped(src, int(x), int(y), int((1-2*v)*float64(f.Box[2])), int((1-2*v)*float64(f.Box[3])))
		},
		of:    []face.Kind{face.LeftwardCropOfTheFaceImage, face.RightwardCropOfTheFaceImage, face.MarginAboveOfTheFaceImage, face.MarginBelowOfTheFaceImage},
		codes: []face.Guidance{face.StepBack}, share: 0.8,
	},
}

// seen are the components of some pictures at one level.
type seen struct {
	all   []face.Components
	found int
	codes map[face.Guidance]int
}

func (s *seen) median(k face.Kind) (value, measured float64) {
	var v, m []float64
	for i := range s.all {
		if c := s.all[i][k]; c.Value != face.NotComputed {
			v, m = append(v, float64(c.Value)), append(m, math.Abs(float64(c.Measured)))
		}
	}
	if len(v) == 0 {
		return math.NaN(), math.NaN()
	}
	slices.Sort(v)
	slices.Sort(m)
	return v[len(v)/2], m[len(m)/2]
}

// steep reports whether a margin moved by little: a tenth of the way to the chin makes up to 23 points of its value, and the
// pictures of LFW are cut just where it is steepest.
func steep(a, b *seen, k face.Kind) bool {
	_, from := a.median(k)
	_, to := b.median(k)
	return (k == face.MarginAboveOfTheFaceImage || k == face.MarginBelowOfTheFaceImage) && math.Abs(to-from) < 0.25
}

// series spoils pictures by a fault, level by level.
func series(t *testing.T, p *face.Pipeline, paths []string, x *fault) []seen {
	t.Helper()
	out := make([]seen, len(x.levels))
	for i := range out {
		out[i].codes = map[face.Guidance]int{}
	}
	for _, path := range paths {
		src := load(t, "faces", "lfw", filepath.Base(filepath.Dir(path)), filepath.Base(path))
		f := central(process(t, p, src), float64(src.Width)/2, float64(src.Height)/2)
		if f == nil || f.Quality.Components.Guidance() != face.NoGuidance {
			continue // good ones only
		}
		for i, level := range x.levels {
			r := process(t, p, x.spoil(src, f, level))
			if len(r.Faces) == 0 {
				continue
			}
			c := r.Faces[0].Quality.Components
			out[i].found++
			out[i].all = append(out[i].all, c)
			out[i].codes[c.Guidance()]++
		}
	}
	return out
}

// TestComponentsFallWithTheirFault and hardly move with the others: real pictures, spoilt by more and more. The table that -v
// prints has a row for each fault at its strongest and the change of each component's value.
func TestComponentsFallWithTheirFault(t *testing.T) {
	if testing.Short() {
		t.Skip("a thousand pictures: not with -short")
	}
	p := infertest.Pipeline(t)
	paths := every(t, 160, 3)
	var table strings.Builder
	for k := range face.Kinds {
		fmt.Fprintf(&table, "%2d %s\n", k, k)
	}
	fmt.Fprintf(&table, "%-36s", "change of the median value by")
	for k := range face.Kinds {
		fmt.Fprintf(&table, "%5d", k)
	}
	for i := range faults {
		x := &faults[i]
		levels := series(t, p, paths, x)
		first, last := &levels[0], &levels[len(levels)-1]
		for _, k := range x.of {
			fmt.Fprintf(&table, "\n  %s:", k)
			worse := math.Inf(1)
			for j := range levels {
				v, m := levels[j].median(k)
				fmt.Fprintf(&table, " %g: %.0f (%.3g)", x.levels[j], v, m)
				if v > worse+2 {
					t.Errorf("%s by %g: %s is %.0f, with less %.0f", x.name, x.levels[j], k, v, worse)
				}
				worse = v
			}
			if v, _ := first.median(k); worse > v-10 {
				t.Errorf("%s: %s moves from %.0f to %.0f only", x.name, k, v, worse)
			}
		}
		right := 0
		for _, code := range x.codes {
			right += last.codes[code]
		}
		fmt.Fprintf(&table, "\n  codes at the strongest: %v", last.codes)
		if share := float64(right) / float64(max(1, last.found)); last.found < 8 || share < x.share {
			t.Errorf("%s: %v is said of %.2f of %d pictures, wanted %.2f: %v", x.name, x.codes, share, last.found, x.share, last.codes)
		}
		fmt.Fprintf(&table, "\n%-36s", x.name)
		for k := range face.Kinds {
			a, _ := first.median(k)
			b, _ := last.median(k)
			fmt.Fprintf(&table, "%5.0f", b-a)
			if math.Abs(b-a) > 15 && !slices.Contains(x.of, k) && !slices.Contains(x.moves, k) && !steep(first, last, k) {
				t.Errorf("%s: %s moves from %.0f to %.0f, which is another fault", x.name, k, a, b)
			}
		}
	}
	t.Log("\n" + table.String())
}

// TestGoodPicturesGetNoCode: on pictures that no limit was set on.
func TestGoodPicturesGetNoCode(t *testing.T) {
	p := infertest.Pipeline(t)
	codes := map[face.Guidance]int{}
	n, paths := 0, every(t, 10, 2)
	for _, path := range paths {
		src := load(t, "faces", "lfw", filepath.Base(filepath.Dir(path)), filepath.Base(path))
		if f := central(process(t, p, src), float64(src.Width)/2, float64(src.Height)/2); f != nil {
			n++
			codes[f.Quality.Components.Guidance()]++
		}
	}
	share := float64(codes[face.NoGuidance]) / float64(n)
	t.Logf("%d faces of %d pictures: %.3f without a code: %v", n, len(paths), share, codes)
	if n < 300 || share < 0.9 {
		t.Errorf("%.3f of %d good pictures get no code, wanted 0.9", share, n)
	}
}
