package face

import (
	"errors"
	"fmt"

	"vigil/infer"
	"vigil/kernels"
)

// arcface holds the five points of an aligned face of 112x112 pixels: the reference of InsightFace's ArcFace, which
// nearly all public embedders are trained on. Order as in Face.Points.
var arcface = [10]float32{38.2946, 51.6963, 73.5318, 51.5014, 56.0252, 71.7366, 41.5493, 92.3655, 70.7299, 92.2041}

// aligner computes where the pixels of an aligned face lie in the frame.
type aligner struct {
	size      int // pixels of the square crop; the reference points scale with it
	target    [10]float32
	landmarks bool        // the detector's points are used
	average   [10]float32 // else: where the points lie in an average face, in parts of its box
}

var alignPres = infer.Registry[*aligner]{
	"similarity5": func(s *infer.Step) (*aligner, error) {
		p := struct {
			Size int `json:"size"`
		}{112}
		if err := s.Decode(&p); err != nil {
			return nil, err
		}
		return makeAligner(p.Size, nil)
	},
	// box5 is for detectors that find boxes only. A head that is tilted or turned stays so.
	"box5": func(s *infer.Step) (*aligner, error) {
		p := struct {
			Size   int       `json:"size"`
			Points []float32 `json:"points"` // x,y of the five points in parts of the box, as in an average face
		}{Size: 112}
		if err := s.Decode(&p); err != nil {
			return nil, err
		}
		if len(p.Points) != 10 {
			return nil, fmt.Errorf("points: %d values, must be x and y of five points", len(p.Points))
		}
		return makeAligner(p.Size, p.Points)
	},
}

func makeAligner(size int, average []float32) (*aligner, error) {
	if size < 32 || size > 512 {
		return nil, fmt.Errorf("size %d: 32 to 512", size)
	}
	a := &aligner{size: size, landmarks: average == nil}
	for i, v := range arcface {
		a.target[i] = v * float32(size) / 112
	}
	copy(a.average[:], average)
	if !a.landmarks {
		if !finite(a.average[:]) {
			return nil, errors.New("points: must be finite numbers")
		}
		if _, ok := kernels.Similarity(a.average[:], a.target[:]); !ok {
			return nil, errors.New("points: all in one place")
		}
	}
	return a, nil
}

func newAligner(s *infer.Stage) (*aligner, error) {
	return alignPres.Make("pre of stage "+s.Name, s.Pre)
}

// transform returns the map from crop to frame; false if the points span no area. Where the detector found no points it
// fills in those of an average face.
func (a *aligner) transform(f *Face) (kernels.Affine, bool) {
	if !a.landmarks {
		for i := range 5 {
			f.Points[2*i] = f.Box[0] + a.average[2*i]*f.Box[2]
			f.Points[2*i+1] = f.Box[1] + a.average[2*i+1]*f.Box[3]
		}
		f.Landmarks = false
	}
	m, ok := kernels.Similarity(f.Points[:], a.target[:])
	if !ok {
		return m, false
	}
	return m.Invert()
}
