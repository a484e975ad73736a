package face

import (
	"fmt"
	"math"
	"slices"

	"vigil/infer"
)

// yunet decodes YuNet: Wu, Peng, Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 2023;
// decoding as in the authors' libfacedetection.train, score sqrt(cls*obj) as in OpenCV.
type yunet struct {
	params detectLimits
	w      int
	scales []level
}

// level is one feature map.
type level struct {
	stride             int
	cls, obj, bbox, kp int // output indices
}

var strides = []int{8, 16, 32}

func newYuNet(s *infer.Step) (decoder, error) {
	l, err := readLimits(s)
	return &yunet{params: l}, err
}

func (y *yunet) landmarks() bool      { return true }
func (y *yunet) limits() detectLimits { return y.params }

// bind finds the twelve outputs by name and checks their sizes.
func (y *yunet) bind(outputs []infer.Tensor, w, h int) error {
	if w%32 != 0 || h%32 != 0 {
		return fmt.Errorf("input of %dx%d pixels: yunet needs multiples of 32", w, h)
	}
	y.w = w
	for _, stride := range strides {
		cells := (h / stride) * (w / stride)
		l := level{stride: stride}
		for _, o := range []struct {
			name  string
			width int
			index *int
		}{{"cls", 1, &l.cls}, {"obj", 1, &l.obj}, {"bbox", 4, &l.bbox}, {"kps", 10, &l.kp}} {
			i, err := output(outputs, fmt.Sprintf("%s_%d", o.name, stride), cells*o.width)
			if err != nil {
				return err
			}
			*o.index = i
		}
		y.scales = append(y.scales, l)
	}
	return nil
}

// output finds an output by name and size.
func output(outputs []infer.Tensor, name string, elements int) (int, error) {
	i := slices.IndexFunc(outputs, func(t infer.Tensor) bool { return t.Name == name })
	if i < 0 || outputs[i].Elements() != elements {
		return 0, fmt.Errorf("output %s with %d values is missing", name, elements)
	}
	return i, nil
}

func (y *yunet) decode(io infer.IO, ix, iy float32, found []candidate) []candidate {
	for _, l := range y.scales {
		found = y.cells(l, io, ix, iy, found)
	}
	return found
}

// cells appends the cells of one feature map that are over the score.
func (y *yunet) cells(l level, io infer.IO, ix, iy float32, found []candidate) []candidate {
	cls, obj := io.Output(l.cls), io.Output(l.obj)
	bbox, kps := io.Output(l.bbox), io.Output(l.kp)
	cols, s := y.w/l.stride, float32(l.stride)
	least := y.params.Score * y.params.Score
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
			box:       [4]float32{(cx - w/2) * ix, (cy - h/2) * iy, w * ix, h * iy},
			score:     float32(math.Sqrt(float64(p))),
			landmarks: true,
		}
		for j := range 5 {
			c.points[2*j], c.points[2*j+1] = (col+k[2*j])*s*ix, (row+k[2*j+1])*s*iy
		}
		if finite(c.box[:]) && finite(c.points[:]) {
			found = append(found, c)
		}
	}
	return found
}

func exp(v float32) float32 { return float32(math.Exp(float64(v))) }
