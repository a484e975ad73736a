package face

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"vigil/infer"
	"vigil/kernels"
	"vigil/kernels/cpu"
)

// maxCandidates bounds the detections before suppression; more than this in one frame are noise.
const maxCandidates = 1024

// candidate is one detection in pixels of the frame.
type candidate struct {
	box       [4]float32
	points    [10]float32
	landmarks bool // points were found
	score     float32
}

// detectPre scales the frame into the detector's input.
type detectPre struct {
	norm    kernels.Norm
	stretch bool // else the aspect ratio is kept
}

var detectPres = infer.Registry[detectPre]{
	"letterbox": func(s *infer.Step) (detectPre, error) {
		n, err := readNorm(s)
		return detectPre{norm: n}, err
	},
	"stretch": func(s *infer.Step) (detectPre, error) {
		n, err := readNorm(s)
		return detectPre{norm: n, stretch: true}, err
	},
}

// decoder reads the outputs of a detector.
type decoder interface {
	// bind finds its tensors among the outputs of a model whose input is w x h pixels.
	bind(outputs []infer.Tensor, w, h int) error
	// decode appends what is over the score, in pixels of the frame: input pixels times ix and iy.
	decode(io infer.IO, ix, iy float32, found []candidate) []candidate
	// landmarks reports whether it finds the five points.
	landmarks() bool
	limits() detectLimits
}

var detectPosts = infer.Registry[decoder]{"yunet": newYuNet, "ultraface": newUltraFace}

// detectLimits are the parameters that every decoder has.
type detectLimits struct {
	Score   float32 `json:"score"`    // least score, 0..1
	IoU     float32 `json:"iou"`      // overlap above which the weaker of two boxes goes
	MinSide float32 `json:"min_side"` // pixels of the frame; smaller faces are not reported
}

func readLimits(s *infer.Step) (l detectLimits, err error) {
	if err := s.Decode(&l); err != nil {
		return l, err
	}
	if !(l.Score > 0 && l.Score < 1) || !(l.IoU > 0 && l.IoU < 1) || !(l.MinSide >= 0) {
		return l, errors.New("score and iou lie between 0 and 1, min_side is 0 or more")
	}
	return l, nil
}

// detector finds the faces of a frame.
type detector struct {
	*infer.Loaded
	stage *infer.Stage
	pre   detectPre
	post  decoder
	w, h  int
	box   *cpu.Letterbox
}

// newDetector configures the stage; landmarks says whether the five points are needed.
func newDetector(s *infer.Stage, landmarks bool) (*detector, error) {
	d := &detector{stage: s}
	var err error
	if d.pre, err = detectPres.Make("pre of stage "+s.Name, s.Pre); err != nil {
		return nil, err
	}
	if d.post, err = detectPosts.Make("post of stage "+s.Name, s.Post); err != nil {
		return nil, err
	}
	if landmarks && !d.post.landmarks() {
		return nil, fmt.Errorf("stage %s: post %q finds boxes only: the alignment must be one that needs no points, such as \"box5\"", s.Name, s.Post.Name)
	}
	if d.w, d.h, err = pictureInput(s); err == nil {
		err = d.post.bind(s.Outputs, d.w, d.h)
	}
	if err != nil {
		return nil, fmt.Errorf("stage %s: %w", s.Name, err)
	}
	return d, nil
}

// pictureInput returns the size of the one picture that a model takes.
func pictureInput(s *infer.Stage) (w, h int, err error) {
	if len(s.Inputs) != 1 {
		return 0, 0, fmt.Errorf("needs a model with one input, it has %d", len(s.Inputs))
	}
	in := s.Inputs[0].Shape
	if len(in) != 4 || in[0] != 1 || in[1] != 3 {
		return 0, 0, fmt.Errorf("input %v: needs [1,3,H,W]", s.Inputs[0])
	}
	return int(in[3]), int(in[2]), nil
}

// run appends the faces of the picture to found, largest first.
func (d *detector) run(ctx context.Context, im *kernels.Image, found []candidate) ([]candidate, error) {
	if d.box == nil || !d.box.Fits(im.Width, im.Height) {
		make := cpu.NewLetterbox
		if d.pre.stretch {
			make = cpu.NewStretch
		}
		d.box = make(im.Width, im.Height, d.w, d.h)
	}
	d.box.Into(d.IO.Input(0), im, &d.pre.norm)
	if err := d.IO.Run(ctx); err != nil {
		return found, fmt.Errorf("detect: %w", err)
	}
	sx, sy := d.box.Scale()
	limits := d.post.limits()
	found = suppress(d.post.decode(d.IO, 1/sx, 1/sy, found), limits.IoU)
	found = slices.DeleteFunc(found, func(c candidate) bool { return min(c.box[2], c.box[3]) < limits.MinSide })
	slices.SortFunc(found, func(a, b candidate) int { return cmp.Compare(b.box[2]*b.box[3], a.box[2]*a.box[3]) })
	return found, nil
}

// clamp01 limits v to 0..1; what is no number is 0.
func clamp01(v float32) float32 {
	if !(v > 0) {
		return 0
	}
	return min(v, 1)
}

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
