package face

import (
	"fmt"

	"vigil/infer"
)

// ultraface decodes Ultra-Light-Fast-Generic-Face-Detector (Linzaer): "scores" [1,N,2], the second a face's, and "boxes"
// [1,N,4] as left, top, right, bottom in parts of the input. It finds no points.
type ultraface struct {
	params        detectLimits
	w, h          float32
	scores, boxes int // output indices
}

func newUltraFace(s *infer.Step) (decoder, error) {
	l, err := readLimits(s)
	return &ultraface{params: l}, err
}

func (u *ultraface) landmarks() bool      { return false }
func (u *ultraface) limits() detectLimits { return u.params }

func (u *ultraface) bind(outputs []infer.Tensor, w, h int) (err error) {
	u.w, u.h = float32(w), float32(h)
	n := 0
	for _, o := range outputs {
		if o.Name == "boxes" {
			n = o.Elements() / 4
		}
	}
	if n == 0 {
		return fmt.Errorf("output boxes is missing")
	}
	if u.boxes, err = output(outputs, "boxes", 4*n); err != nil {
		return err
	}
	u.scores, err = output(outputs, "scores", 2*n)
	return err
}

func (u *ultraface) decode(io infer.IO, ix, iy float32, found []candidate) []candidate {
	scores, boxes := io.Output(u.scores), io.Output(u.boxes)
	for i := 0; i < len(scores)/2 && len(found) < cap(found); i++ {
		score := clamp01(scores[2*i+1])
		if score < u.params.Score {
			continue
		}
		b := boxes[4*i:][:4]
		x, y := b[0]*u.w*ix, b[1]*u.h*iy
		c := candidate{box: [4]float32{x, y, b[2]*u.w*ix - x, b[3]*u.h*iy - y}, score: score}
		if finite(c.box[:]) && c.box[2] > 0 && c.box[3] > 0 {
			found = append(found, c)
		}
	}
	return found
}
