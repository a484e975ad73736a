package face

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"vigil/infer"
	"vigil/kernels"
)

// maxCandidates bounds the detections before suppression; more than this in one frame are noise.
const maxCandidates = 1024

// candidate is one detection in pixels of the frame.
type candidate struct {
	box    [4]float32
	points [10]float32
	score  float32
}

// letterboxParams are those of the pre-processing "letterbox".
type letterboxParams struct {
	Order string     `json:"order"` // "BGR" or "RGB"
	Mean  [3]float32 `json:"mean"`  // in the order of the channels, of values 0..255
	Std   [3]float32 `json:"std"`
}

func (p letterboxParams) norm() (kernels.Norm, error) {
	n := kernels.Norm{BGR: p.Order == "BGR", Mean: p.Mean}
	if p.Order != "BGR" && p.Order != "RGB" {
		return n, fmt.Errorf("order %q: \"RGB\" or \"BGR\"", p.Order)
	}
	for c, s := range p.Std {
		if !(s > 0) {
			return n, fmt.Errorf("std %v: must be positive", p.Std)
		}
		n.InvStd[c] = 1 / s
	}
	return n, nil
}

// yunetParams are those of the post-processing "yunet".
type yunetParams struct {
	Score   float32 `json:"score"`    // least sqrt(cls*obj)
	IoU     float32 `json:"iou"`      // overlap above which the weaker of two boxes goes
	MinSide float32 `json:"min_side"` // pixels of the frame; smaller faces are not reported
}

// detector is YuNet: Wu, Peng, Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 2023;
// decoding as in the authors' libfacedetection.train, score sqrt(cls*obj) as in OpenCV.
type detector struct {
	eng    infer.Engine
	io     infer.IO
	norm   kernels.Norm
	params yunetParams
	w, h   int
	box    *kernels.Letterbox
	scales []level
}

// level is one feature map.
type level struct {
	stride             int
	cls, obj, bbox, kp int // output indices
}

var strides = []int{8, 16, 32}

func newDetector(ctx context.Context, rt infer.Runtime, m *infer.Model, s *infer.Stage) (*detector, error) {
	d := &detector{}
	if err := d.configure(s); err != nil {
		return nil, fmt.Errorf("stage %s: %w", s.Name, err)
	}
	var err error
	if d.eng, d.io, err = load(ctx, rt, m, s); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *detector) configure(s *infer.Stage) error {
	if s.Pre == nil || s.Pre.Name != "letterbox" || s.Post == nil || s.Post.Name != "yunet" {
		return errors.New("needs pre \"letterbox\" and post \"yunet\"")
	}
	var lp letterboxParams
	if err := errors.Join(s.Pre.Decode(&lp), s.Post.Decode(&d.params)); err != nil {
		return err
	}
	var err error
	if d.norm, err = lp.norm(); err != nil {
		return err
	}
	if !(d.params.Score > 0 && d.params.Score < 1) || !(d.params.IoU > 0 && d.params.IoU < 1) || !(d.params.MinSide >= 0) {
		return errors.New("yunet: score and iou lie between 0 and 1, min_side is 0 or more")
	}
	if len(s.Inputs) != 1 {
		return fmt.Errorf("needs a model with one input, it has %d", len(s.Inputs))
	}
	in := s.Inputs[0].Shape
	if len(in) != 4 || in[0] != 1 || in[1] != 3 || in[2]%32 != 0 || in[3]%32 != 0 {
		return fmt.Errorf("input %v: needs [1,3,H,W] with H and W multiples of 32", s.Inputs[0])
	}
	d.h, d.w = int(in[2]), int(in[3])
	return d.levels(s.Outputs)
}

// levels finds the twelve outputs by name and checks their sizes.
func (d *detector) levels(outputs []infer.Tensor) error {
	for _, stride := range strides {
		cells := (d.h / stride) * (d.w / stride)
		l := level{stride: stride}
		for _, o := range []struct {
			name  string
			width int
			index *int
		}{{"cls", 1, &l.cls}, {"obj", 1, &l.obj}, {"bbox", 4, &l.bbox}, {"kps", 10, &l.kp}} {
			name := fmt.Sprintf("%s_%d", o.name, stride)
			i := slices.IndexFunc(outputs, func(t infer.Tensor) bool { return t.Name == name })
			if i < 0 || outputs[i].Elements() != cells*o.width {
				return fmt.Errorf("output %s with %d values is missing", name, cells*o.width)
			}
			*o.index = i
		}
		d.scales = append(d.scales, l)
	}
	return nil
}

// run appends the faces of the picture to found, largest first.
func (d *detector) run(ctx context.Context, im *kernels.Image, found []candidate) ([]candidate, error) {
	if d.box == nil || !d.box.Fits(im.Width, im.Height) {
		d.box = kernels.NewLetterbox(im.Width, im.Height, d.w, d.h)
	}
	d.box.Into(d.io.Input(0), im, &d.norm)
	if err := d.io.Run(ctx); err != nil {
		return found, fmt.Errorf("detect: %w", err)
	}
	inv := 1 / d.box.Scale()
	for _, l := range d.scales {
		found = d.decode(l, inv, found)
	}
	found = suppress(found, d.params.IoU)
	found = slices.DeleteFunc(found, func(c candidate) bool { return min(c.box[2], c.box[3]) < d.params.MinSide })
	slices.SortFunc(found, func(a, b candidate) int { return cmp.Compare(b.box[2]*b.box[3], a.box[2]*a.box[3]) })
	return found, nil
}

// decode appends the cells of one feature map that are over the score.
func (d *detector) decode(l level, inv float32, found []candidate) []candidate {
	cls, obj := d.io.Output(l.cls), d.io.Output(l.obj)
	bbox, kps := d.io.Output(l.bbox), d.io.Output(l.kp)
	cols, s := d.w/l.stride, float32(l.stride)
	least := d.params.Score * d.params.Score
	for i := range cls {
		p := clamp01(cls[i]) * clamp01(obj[i])
		if !(p >= least) || len(found) == cap(found) {
			continue
		}
		col, row := float32(i%cols), float32(i/cols)
		b, k := bbox[4*i:][:4], kps[10*i:][:10]
		cx, cy := (col+b[0])*s, (row+b[1])*s
		w, h := exp(b[2])*s, exp(b[3])*s
		c := candidate{
			box:   [4]float32{(cx - w/2) * inv, (cy - h/2) * inv, w * inv, h * inv},
			score: float32(math.Sqrt(float64(p))),
		}
		for j := range 5 {
			c.points[2*j], c.points[2*j+1] = (col+k[2*j])*s*inv, (row+k[2*j+1])*s*inv
		}
		if finite(c.box[:]) && finite(c.points[:]) {
			found = append(found, c)
		}
	}
	return found
}

// clamp01 limits v to 0..1; what is no number is 0.
func clamp01(v float32) float32 {
	if !(v > 0) {
		return 0
	}
	return min(v, 1)
}

func exp(v float32) float32 { return float32(math.Exp(float64(v))) }

func finite(v []float32) bool {
	for _, x := range v {
		if x-x != 0 {
			return false
		}
	}
	return true
}

// suppress keeps, of every group of boxes that overlap by more than iou, the one with the best score (greedy
// non-maximum suppression), in place.
func suppress(c []candidate, iou float32) []candidate {
	slices.SortFunc(c, func(a, b candidate) int { return cmp.Compare(b.score, a.score) })
	kept := c[:0]
	for _, x := range c {
		if !slices.ContainsFunc(kept, func(k candidate) bool { return overlap(k.box, x.box) > iou }) {
			kept = append(kept, x)
		}
	}
	return kept
}

// overlap is intersection over union of two boxes.
func overlap(a, b [4]float32) float32 {
	w := min(a[0]+a[2], b[0]+b[2]) - max(a[0], b[0])
	h := min(a[1]+a[3], b[1]+b[3]) - max(a[1], b[1])
	if w <= 0 || h <= 0 {
		return 0
	}
	inter := w * h
	return inter / (a[2]*a[3] + b[2]*b[3] - inter)
}

func (d *detector) close() error { return closeBoth(d.io, d.eng) }
