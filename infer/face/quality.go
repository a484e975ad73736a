package face

import (
	"math"

	"vigil/kernels"
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

// judge computes the quality of a face from its aligned crop (a normalised tensor) and its points.
func judge(crop []float32, w, h int, n *kernels.Norm, f *Face) Quality {
	mean, dev, lap := statistics(crop, w, h, n)
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
func statistics(crop []float32, w, h int, n *kernels.Norm) (mean, dev, lap float32) {
	plane := crop[w*h : 2*w*h]
	std, off := 1/n.InvStd[1], n.Mean[1]
	var sum, sq, lsum, lsq float64
	count := 0
	for y := h / 5; y < h*9/10; y++ {
		for x := w / 5; x < w*4/5; x++ {
			i := y*w + x
			v := plane[i]
			l := float64((4*v - plane[i-1] - plane[i+1] - plane[i-w] - plane[i+w]) * std)
			p := float64(v*std + off)
			sum, sq, lsum, lsq = sum+p, sq+p*p, lsum+l, lsq+l*l
			count++
		}
	}
	c := float64(count)
	mean = float32(sum / c)
	dev = float32(math.Sqrt(max(0, sq/c-(sum/c)*(sum/c))))
	return mean, dev, float32(lsq/c - (lsum/c)*(lsum/c))
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
