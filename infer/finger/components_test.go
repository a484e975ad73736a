package finger_test

import (
	"slices"
	"testing"

	"vigil/infer/finger"
	"vigil/sensors/synth"
)

// fixed is a range of one value.
func fixed(v float64) synth.Range { return synth.Range{Min: v, Max: v} }

// medians of the components over some fingers that are spoilt alike.
func medians(t *testing.T, p *finger.Pipeline, change func(*synth.ImpressionOptions), cut func(*synth.Impression)) finger.Components {
	t.Helper()
	var all []finger.Components
	r := p.NewResult()
	for seed := range uint64(5) {
		im := touch(t, 7000+seed, 1, func(o *synth.ImpressionOptions) {
			o.Pressure, o.Moisture = fixed(0), fixed(0)
			if change != nil {
				change(o)
			}
		})
		if cut != nil {
			cut(im)
		}
		if err := p.Process(t.Context(), gray(im.Width, im.Height, im.Gray), 500, r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r.Quality.Components)
	}
	pick := func(of func(finger.Components) uint8) uint8 {
		var v []uint8
		for _, c := range all {
			v = append(v, of(c))
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	return finger.Components{
		Coverage: pick(func(c finger.Components) uint8 { return c.Coverage }), RidgeClarity: pick(func(c finger.Components) uint8 { return c.RidgeClarity }),
		Minutiae: pick(func(c finger.Components) uint8 { return c.Minutiae }), Moisture: pick(func(c finger.Components) uint8 { return c.Moisture }),
		RidgeShare: pick(func(c finger.Components) uint8 { return c.RidgeShare }), Contrast: pick(func(c finger.Components) uint8 { return c.Contrast }),
	}
}

// TestComponentsMoveTheRightWay on touches that are dry, wet, faint, partial.
func TestComponentsMoveTheRightWay(t *testing.T) {
	p := built(t)
	good := medians(t, p, nil, nil)
	dry := medians(t, p, func(o *synth.ImpressionOptions) { o.Pressure, o.Moisture = fixed(-0.9), fixed(-1) }, nil)
	wet := medians(t, p, func(o *synth.ImpressionOptions) { o.Pressure, o.Moisture = fixed(0.9), fixed(1) }, nil)
	faint := medians(t, p, func(o *synth.ImpressionOptions) { o.Contrast = fixed(0.15) }, nil)
	part := medians(t, p, nil, func(im *synth.Impression) { // only a spot touches
		for y := range im.Height {
			for x := range im.Width {
				if y < im.Height*3/8 || y > im.Height*5/8 || x < im.Width*3/8 || x > im.Width*5/8 {
					im.Gray[y*im.Width+x] = 250
				}
			}
		}
	})
	for name, c := range map[string]finger.Components{"good": good, "dry": dry, "wet": wet, "faint": faint, "part": part} {
		t.Logf("%-6s %+v guidance %q", name, c, c.Guidance())
	}
	if good.Guidance() != finger.NoGuidance {
		t.Errorf("a good touch gives %q", good.Guidance())
	}
	if !(dry.RidgeShare+4 <= good.RidgeShare && good.RidgeShare+4 <= wet.RidgeShare) || dry.Moisture >= good.Moisture || wet.Moisture >= good.Moisture {
		t.Errorf("ridges of dry, good, wet: %d %d %d; moisture %d %d %d", dry.RidgeShare, good.RidgeShare, wet.RidgeShare, dry.Moisture, good.Moisture, wet.Moisture)
	}
	if faint.Contrast+20 > good.Contrast || part.Coverage+20 > good.Coverage {
		t.Errorf("contrast %d, faint %d; coverage %d, part %d", good.Contrast, faint.Contrast, good.Coverage, part.Coverage)
	}
}
