package finger

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"vigil/infer"
	"vigil/kernels"
	"vigil/kernels/minutiae"
)

// cell is the side of a cell of the network's output in pixels; middleOf is where its middle lies.
const (
	cell     = 8
	middleOf = 3.5
)

// Channels of the output "cells", in the order of the training recipe.
const (
	chMask = iota
	chConfidence
	chCos2
	chSin2
	chMinutia
	chDX
	chDY
	chCos
	chSin
	channels
)

// normParams are those of the pre-processing "local-normalize".
type normParams struct {
	Window int     `json:"window"` // pixels, odd
	Floor  float32 `json:"floor"`  // grey levels
	Clip   float32 `json:"clip"`
}

// cellParams are those of the post-processing "minutiae-cells".
type cellParams struct {
	Score  float32 `json:"score"`  // least probability of a minutia
	Radius float32 `json:"radius"` // pixels; of two minutiae that are closer the better stays
}

// extractor finds finger, ridges and minutiae.
type extractor struct {
	model  *infer.Loaded
	w, h   int // pixels of the input
	cw, ch int // cells of the outputs
	norm   normParams
	post   cellParams
	found  []candidate // best first

	features int // channels of the feature map
}

// candidate is a minutia with the logit of its probability.
type candidate struct {
	x, y, angle, logit float32
}

func newExtractor(s *infer.Stage) (*extractor, error) {
	e := &extractor{norm: normParams{Window: 33, Floor: 6, Clip: 3}, post: cellParams{Score: 0.5, Radius: 6}}
	if err := e.configure(s); err != nil {
		return nil, err
	}
	e.features = int(s.Outputs[1].Shape[1])
	e.found = make([]candidate, 0, e.cw*e.ch)
	return e, nil
}

func (e *extractor) configure(s *infer.Stage) error {
	if s.Pre == nil || s.Pre.Name != "local-normalize" || s.Post == nil || s.Post.Name != "minutiae-cells" {
		return errors.New("needs pre \"local-normalize\" and post \"minutiae-cells\"")
	}
	if err := errors.Join(s.Pre.Decode(&e.norm), s.Post.Decode(&e.post)); err != nil {
		return err
	}
	if n := e.norm; n.Window < 3 || n.Window > 255 || n.Window%2 == 0 || !(n.Floor > 0 && n.Floor <= 255) || !(n.Clip > 0 && n.Clip <= 100) {
		return errors.New("local-normalize: window is odd, 3 to 255, floor and clip are above 0")
	}
	if !(e.post.Score > 0 && e.post.Score < 1) || !(e.post.Radius >= 0 && e.post.Radius <= 64) {
		return errors.New("minutiae-cells: score lies between 0 and 1, radius is 0 to 64 pixels")
	}
	if len(s.Inputs) != 1 || len(s.Outputs) != 2 {
		return fmt.Errorf("needs a model with one input and two outputs, it has %d and %d", len(s.Inputs), len(s.Outputs))
	}
	in, cells, features := s.Inputs[0].Shape, s.Outputs[0].Shape, s.Outputs[1].Shape
	if len(in) != 4 || in[0] != 1 || in[1] != 1 || in[2]%(2*cell) != 0 || in[3]%(2*cell) != 0 ||
		in[3] > minutiae.MaskColumns*minutiae.MaskCell || in[2] > minutiae.MaskRows*minutiae.MaskCell {
		return fmt.Errorf("input %v: must be 1x1xHxW, multiples of %d, at most %dx%d", s.Inputs[0], 2*cell,
			minutiae.MaskRows*minutiae.MaskCell, minutiae.MaskColumns*minutiae.MaskCell)
	}
	e.h, e.w = int(in[2]), int(in[3])
	e.ch, e.cw = e.h/cell, e.w/cell
	want := []int64{1, channels, int64(e.ch), int64(e.cw)}
	if !slices.Equal(cells, want) {
		return fmt.Errorf("output %v: must have shape %v", s.Outputs[0], want)
	}
	if len(features) != 4 || features[0] != 1 || features[2] != want[2] || features[3] != want[3] {
		return fmt.Errorf("output %v: must have shape [1 C %d %d]", s.Outputs[1], e.ch, e.cw)
	}
	return nil
}

// fill writes the normalised picture into the upper left of the input; the rest is 0, as in training.
func (e *extractor) fill(n *kernels.LocalNorm, in []float32, gray []byte, w, h int) {
	clear(in)
	n.Normalize(in, e.w, gray, w, h, e.norm.Window, e.norm.Floor, e.norm.Clip)
}

// channel is one plane of the output "cells".
func (e *extractor) channel(i int) []float32 { return e.model.IO.Output(0)[i*e.cw*e.ch:][:e.cw*e.ch] }

// find lists the minutiae, best first.
func (e *extractor) find() {
	e.found = e.found[:0]
	score, mask := e.channel(chMinutia), e.channel(chMask)
	dx, dy, c, s := e.channel(chDX), e.channel(chDY), e.channel(chCos), e.channel(chSin)
	least := float32(math.Log(float64(e.post.Score) / (1 - float64(e.post.Score))))
	for i, v := range score {
		if !(v >= least && mask[i] > 0) {
			continue
		}
		x := float32(i%e.cw*cell) + middleOf + cell*clamp(dx[i], -1, 1)
		y := float32(i/e.cw*cell) + middleOf + cell*clamp(dy[i], -1, 1)
		if x < 0 || y < 0 || x > float32(e.w-1) || y > float32(e.h-1) {
			continue
		}
		e.found = append(e.found, candidate{x, y, float32(math.Atan2(float64(s[i]), float64(c[i]))), v})
	}
	slices.SortFunc(e.found, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.logit, a.logit), cmp.Compare(a.y, b.y), cmp.Compare(a.x, b.x))
	})
	e.found = thinOut(e.found, e.post.Radius)
}

// thinOut keeps the better of two that are closer than radius, and at most as many as a template holds.
func thinOut(found []candidate, radius float32) []candidate {
	kept := found[:0]
	for _, f := range found {
		close := func(k candidate) bool { return (k.x-f.x)*(k.x-f.x)+(k.y-f.y)*(k.y-f.y) < radius*radius }
		if len(kept) < minutiae.Max && !slices.ContainsFunc(kept, close) {
			kept = append(kept, f)
		}
	}
	return kept
}

func clamp(v, lo, hi float32) float32 { return max(lo, min(hi, v)) }

func sigmoid(v float32) float32 { return float32(1 / (1 + math.Exp(-float64(v)))) }

// middle is the corner of the cw x ch window of a grey picture that holds most of the finger: the window about the centre
// of gravity of the contrast between pixels a ridge apart.
func middle(gray []byte, w, h, cw, ch int) (x0, y0 int) {
	const step = 4
	var sum, sx, sy float64
	for y := step; y < h; y += step {
		for x := step; x < w; x += step {
			at := y*w + x
			d := math.Abs(float64(gray[at])-float64(gray[at-step])) + math.Abs(float64(gray[at])-float64(gray[at-step*w]))
			sum, sx, sy = sum+d, sx+d*float64(x), sy+d*float64(y)
		}
	}
	if sum == 0 {
		sum, sx, sy = 1, float64(w)/2, float64(h)/2
	}
	x0 = max(0, min(w-cw, int(sx/sum)-cw/2))
	y0 = max(0, min(h-ch, int(sy/sum)-ch/2))
	return x0, y0
}
