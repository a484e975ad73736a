package face

import (
	"math"

	"vigil/kernels"
	"vigil/kernels/cpu"
)

// Quality says how fit a face is for a template, and decides whether one is made. Every part lies between 0 (useless) and 1
// (nothing to wish). Parts and scales are ours, not a standard's. Unified is the worst of them, because one bad part spoils a
// template.
type Quality struct {
	Unified   float32
	Sharpness float32 // variance of the Laplacian of the aligned crop
	Exposure  float32 // mean luminance away from black and white
	Contrast  float32 // spread of the luminance
	Pose      float32 // nose between the eyes: 1 frontal, 0 profile; 1 where the detector finds no points
	Size      float32 // inter-eye distance
	// Components are in the terms of ISO/IEC 29794-5, see Kind; they guide, they do not decide.
	Components Components
}

// Ranges over which the components run from 0 to 1, on the luminance 0..255 of an aligned crop. They were set on
// pictures of a public set that embed well and on blurred, dark and shrunken copies of them that do not.
const (
	sharpLow, sharpHigh       = 4, 60  // variance of the Laplacian
	darkLow, darkHigh         = 25, 70 // mean luminance
	brightLow, brightHigh     = 190, 235
	contrastLow, contrastHigh = 8, 32  // standard deviation
	eyesLow, eyesHigh         = 12, 40 // pixels between the eyes
)

// examiner looks at aligned crops of one size and normalisation. It serves one goroutine at a time.
type examiner struct {
	size    int
	inv     float32 // of the green channel, which serves as luminance for judge
	off     float32
	levels  kernels.Levels
	middle  cpu.Spans // of the crop, where the face is
	ellipse cpu.Spans // see region
}

func newExaminer(size int, n *kernels.Norm) *examiner {
	e := &examiner{size: size, inv: 1 / n.InvStd[1], off: n.Mean[1]}
	for c := range 3 {
		colour := c
		if n.BGR {
			colour = 2 - c
		}
		e.levels.Scale[c], e.levels.Offset[c], e.levels.Table[c] = 1/n.InvStd[c], n.Mean[c]+0.5, linear[colour]
	}
	for y := size / 5; y < size*9/10; y++ {
		e.middle.Add(y, size/5, size*4/5)
	}
	return e
}

// green is the plane of that colour, in either order of channels.
func (e *examiner) green(crop []float32) []float32 { return crop[e.size*e.size:][:e.size*e.size] }

// judge computes the quality of a face from its aligned crop (a normalised tensor) and its points.
func (e *examiner) judge(crop []float32, f *Face) Quality {
	mean, dev, lap := e.statistics(crop)
	q := Quality{
		Sharpness: ramp(lap, sharpLow, sharpHigh),
		Exposure:  min(ramp(mean, darkLow, darkHigh), 1-ramp(mean, brightLow, brightHigh)),
		Contrast:  ramp(dev, contrastLow, contrastHigh),
		Pose:      frontal(&f.Points),
		Size:      ramp(distance(&f.Points, 0, 1), eyesLow, eyesHigh),
	}
	if !f.Landmarks {
		q.Pose = 1 // a box alone says nothing about it
	}
	q.Unified = min(q.Sharpness, q.Exposure, q.Contrast, q.Pose, q.Size)
	return q
}

// ramp runs from 0 at lo to 1 at hi.
func ramp(v, lo, hi float32) float32 { return clamp01((v - lo) / (hi - lo)) }

// statistics returns mean and standard deviation of the luminance (the green channel serves) of the middle of the crop,
// where the face is, and the variance of its Laplacian.
func (e *examiner) statistics(crop []float32) (mean, dev, lap float32) {
	m := e.middle.Moments(e.green(crop), e.size, 1)
	values, laplacian := m.Variance()
	return float32(m.Sum/float64(m.Count))*e.inv + e.off, float32(math.Sqrt(max(0, values))) * e.inv, float32(laplacian) * e.inv * e.inv
}

func distance(p *[10]float32, a, b int) float32 {
	return float32(math.Hypot(float64(p[2*a]-p[2*b]), float64(p[2*a+1]-p[2*b+1])))
}

// frontal compares how far the nose is from either eye along the line through them: equal for a frontal face.
func frontal(p *[10]float32) float32 {
	ex, ey := p[2]-p[0], p[3]-p[1]
	eyes := ex*ex + ey*ey
	if eyes == 0 {
		return 0
	}
	along := ((p[4]-p[0])*ex + (p[5]-p[1])*ey) / eyes // 0 at the right eye, 1 at the left
	return clamp01(1 - 2*float32(math.Abs(float64(along-0.5))))
}
