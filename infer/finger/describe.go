package finger

import (
	"context"
	"errors"
	"fmt"
	"math"

	"vigil/infer"
	"vigil/kernels/minutiae"
)

// sampleParams are those of the pre-processing "oriented-grid": features are read at grid x grid points, spacing pixels
// apart, about a minutia and turned with it.
type sampleParams struct {
	Grid    int     `json:"grid"`
	Spacing float32 `json:"spacing"`
}

// turns are the inputs behind the samples: cosine and sine of the angle and of twice the angle.
const turns = 4

// describer turns minutiae into a template.
type describer struct {
	model    *infer.Loaded
	params   sampleParams
	append   func(row []int8, m minutiae.Minutia, description []float32) bool
	rows     int // minutiae of one run
	span     int // inputs of one minutia
	features int // channels of the feature map
}

func newDescriber(s *infer.Stage, e *extractor) (*describer, error) {
	d := &describer{params: sampleParams{Grid: 5, Spacing: 10}, features: e.features}
	if err := d.configure(s); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *describer) configure(s *infer.Stage) error {
	if s.Pre == nil || s.Pre.Name != "oriented-grid" {
		return errors.New("needs pre \"oriented-grid\"")
	}
	if err := s.Pre.Decode(&d.params); err != nil {
		return err
	}
	if d.params.Grid < 1 || d.params.Grid > 15 || !(d.params.Spacing > 0 && d.params.Spacing <= 64) {
		return errors.New("oriented-grid: grid is 1 to 15 points, spacing above 0, at most 64 pixels")
	}
	d.span = d.params.Grid*d.params.Grid*d.features + turns
	if len(s.Inputs) != 1 || len(s.Outputs) != 1 || len(s.Inputs[0].Shape) != 2 || len(s.Outputs[0].Shape) != 2 {
		return errors.New("needs a model with one input and one output of two axes")
	}
	in, out := s.Inputs[0].Shape, s.Outputs[0].Shape
	if in[1] != int64(d.span) || out[1] != minutiae.DescriptorBytes || in[0] != out[0] {
		return fmt.Errorf("input %v and output %v: must be [N %d] and [N %d]", s.Inputs[0], s.Outputs[0], d.span, minutiae.DescriptorBytes)
	}
	if d.rows = int(in[0]); d.rows < minutiae.Max {
		return fmt.Errorf("input %v: a template has %d minutiae", s.Inputs[0], minutiae.Max)
	}
	return nil
}

// run describes the minutiae that e found and writes the template.
func (d *describer) run(ctx context.Context, e *extractor, row []int8) error {
	in := d.model.IO.Input(0)
	for i := range e.found {
		d.sample(in[i*d.span:][:d.span], e, &e.found[i])
	}
	clear(in[len(e.found)*d.span:])
	if err := d.model.IO.Run(ctx); err != nil {
		return err
	}
	minutiae.Clear(row)
	setMask(row, e)
	out := d.model.IO.Output(0)
	for i := range e.found {
		f := &e.found[i]
		m := minutiae.Minutia{X: f.x, Y: f.y, Angle: f.angle, Quality: sigmoid(f.logit)}
		d.append(row, m, out[i*minutiae.DescriptorBytes:][:minutiae.DescriptorBytes])
	}
	return nil
}

// setMask marks the cells of the template's mask where at least half is finger.
func setMask(row []int8, e *extractor) {
	mask := e.channel(chMask)
	for r := range e.ch / cellsPerMaskCell {
		for c := range e.cw / cellsPerMaskCell {
			n := 0
			for k := range cellsPerMaskCell * cellsPerMaskCell {
				if mask[(r*cellsPerMaskCell+k/cellsPerMaskCell)*e.cw+c*cellsPerMaskCell+k%cellsPerMaskCell] > 0 {
					n++
				}
			}
			if n >= maskCellsThatMakeAFind {
				minutiae.SetMask(row, c, r)
			}
		}
	}
}

// sample fills one row of the input: the features about a minutia, then its angle.
func (d *describer) sample(dst []float32, e *extractor, f *candidate) {
	sin64, cos64 := math.Sincos(float64(f.angle))
	sin, cos := float32(sin64), float32(cos64)
	half := d.params.Grid / 2
	at := 0
	for a := range d.params.Grid {
		along := float32(a-half) * d.params.Spacing
		for b := range d.params.Grid {
			across := float32(b-half) * d.params.Spacing
			x := f.x + along*cos + across*sin
			y := f.y - along*sin + across*cos
			d.bilinear(dst[at:][:d.features], e, (x-middleOf)/cell, (y-middleOf)/cell)
			at += d.features
		}
	}
	dst[at], dst[at+1] = cos, sin
	dst[at+2], dst[at+3] = cos*cos-sin*sin, 2*sin*cos
}

// bilinear reads all channels of the feature map at a place in cells; outside the map there is nothing.
func (d *describer) bilinear(dst []float32, e *extractor, fx, fy float32) {
	clear(dst)
	x0, y0 := int(math.Floor(float64(fx))), int(math.Floor(float64(fy)))
	plane := e.cw * e.ch
	features := e.model.IO.Output(1)
	for k := range 4 {
		x, y := x0+k%2, y0+k/2
		if uint(x) >= uint(e.cw) || uint(y) >= uint(e.ch) {
			continue
		}
		weight := (1 - abs(fx-float32(x))) * (1 - abs(fy-float32(y)))
		for c := range dst {
			dst[c] += weight * features[c*plane+y*e.cw+x]
		}
	}
}

func abs(v float32) float32 { return max(v, -v) }
