package core

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"vigil/sensors"
	"vigil/sensors/synth"
)

// SwapCheck is how a bundle answered the check set before it was taken into use.
type SwapCheck struct {
	Pictures int `json:"pictures"`
	// Of the same model at another precision or on another runtime: how much its templates agree with those of the bundle in
	// use, as the gallery scores them.
	MeanAgreement  float32 `json:"mean_agreement,omitempty"`
	LeastAgreement float32 `json:"least_agreement,omitempty"`
}

// checkPictures is the size of the check set. It is generated: nobody's picture has to be kept for it.
const checkPictures = 12

// Least agreement of faces (cosine) of one model with itself, over the check set and for one picture of it. INT8 against
// float stays above 0.98 on faces (quant's gate); the generated pictures are no faces, and models are less sure of them.
const (
	leastMeanAgreement = 0.97
	leastAgreement     = 0.90
)

// check says whether a bundle may take over. A new model must answer every picture of the check set, on every worker the
// same, twice the same (the first worker), must know each picture again, and must not take all of them for one; the same
// model must agree with what is in use now. Errors: ErrDisagrees, those of the models.
func (u *Unit) check(ctx context.Context, before, next *generation) (c SwapCheck, err error) {
	score, done := next.scorer()
	defer done()
	var all []sample
	defer func() {
		for i := range all {
			all[i].wipe()
		}
	}()
	least, sum := float32(math.Inf(1)), float32(0)
	for i := range checkPictures {
		s, agreement, err := u.checkOne(ctx, i, before, next, score)
		all = append(all, s)
		if err != nil {
			return c, err
		}
		c.Pictures++
		least, sum = min(least, agreement), sum+agreement
		if before != nil && before.id == next.id {
			c.LeastAgreement, c.MeanAgreement = least, sum/float32(c.Pictures)
		}
	}
	if slices.IndexFunc(all, func(s sample) bool { return !slices.Equal(s.values, all[0].values) }) < 0 {
		return c, fmt.Errorf("%w: all %d pictures give one template", ErrDisagrees, c.Pictures)
	}
	if before != nil && before.id == next.id {
		return c, u.agrees(next, c)
	}
	return c, nil
}

// agrees judges the agreement of a model with itself.
func (u *Unit) agrees(g *generation, c SwapCheck) error {
	mean, least := float32(leastMeanAgreement), float32(leastAgreement)
	if u.kind == Finger { // no cosine: the score of one finger
		mean, least = g.policy.VerifyThreshold, g.policy.VerifyThreshold
	}
	if c.MeanAgreement < mean || c.LeastAgreement < least {
		return fmt.Errorf("%w: its templates agree with those of the bundle in use by %.3f in the mean, %.3f at least; %.3f and %.3f are needed",
			ErrDisagrees, c.MeanAgreement, c.LeastAgreement, mean, least)
	}
	return nil
}

// checkOne puts one picture to the bundle; agreement is that with the bundle in use, if it is of the same model.
func (u *Unit) checkOne(ctx context.Context, i int, before, next *generation, score func(a, b *sample) float32) (s sample, agreement float32, err error) {
	f, err := next.recs[0].checkPicture(ctx, i)
	if err != nil {
		return s, 0, err
	}
	if s, err = next.probeAll(ctx, f); err != nil {
		return s, 0, fmt.Errorf("picture %d: %w", i, err)
	}
	if self := score(&s, &s); self < next.policy.VerifyThreshold {
		return s, 0, fmt.Errorf("%w: picture %d is not known again (score %.2f, needed %.2f)", ErrDisagrees, i, self, next.policy.VerifyThreshold)
	}
	if before == nil || before.id != next.id {
		return s, 0, nil
	}
	old, err := u.probeNow(ctx, f)
	if err != nil {
		return s, 0, err
	}
	defer old.wipe()
	return s, score(&old, &s), nil
}

// probeAll makes the template of a picture of the check set on every worker, and twice on the first.
func (g *generation) probeAll(ctx context.Context, f *sensors.Frame) (sample, error) {
	first, err := g.recs[0].probe(ctx, f)
	if err != nil {
		return first, err
	}
	for _, r := range append(slices.Clone(g.recs), g.recs[0]) {
		s, err := r.probe(ctx, f)
		if err != nil {
			return first, err
		}
		same := s.scale == first.scale && slices.Equal(s.values, first.values)
		s.wipe()
		if !same {
			return first, fmt.Errorf("%w: it gives another template each time", ErrDisagrees)
		}
	}
	return first, nil
}

// probeNow is the template that the bundle in use makes, between two frames of the first worker.
func (u *Unit) probeNow(ctx context.Context, f *sensors.Frame) (sample, error) {
	g, _ := u.slot.Enter(0)
	defer u.slot.Leave(0)
	defer g.recs[0].wipe()
	return g.recs[0].probe(ctx, f)
}

// checkCrop is a picture of the check set for faces, of the size of an aligned crop: soft blobs of colour, which vary as much
// from one to the next as faces do.
func checkCrop(i, side int) *sensors.Frame {
	r := rand.New(rand.NewPCG(uint64(i), 0x56494749))
	pix := make([]byte, 3*side*side)
	var base [3]float64
	for c := range base {
		base[c] = 40 + 160*r.Float64()
	}
	type blob struct{ x, y, width, height float64 }
	var blobs [3][8]blob
	for c := range blobs {
		for k := range blobs[c] {
			blobs[c][k] = blob{r.Float64(), r.Float64(), 0.05 + 0.25*r.Float64(), 160*r.Float64() - 80}
		}
	}
	for y := range side {
		for x := range side {
			for c := range base {
				v := base[c]
				for _, b := range blobs[c] {
					dx, dy := float64(x)/float64(side)-b.x, float64(y)/float64(side)-b.y
					v += b.height * math.Exp(-(dx*dx+dy*dy)/(2*b.width*b.width))
				}
				pix[3*(y*side+x)+c] = byte(min(max(v, 0), 255))
			}
		}
	}
	return &sensors.Frame{Sensor: "check", Width: side, Height: side, Format: sensors.RGB24,
		Planes: [2]sensors.Plane{{Data: pix, StrideBytes: 3 * side}}}
}

// checkPrint is a picture of the check set for fingers: a print of nobody.
func checkPrint(ctx context.Context, i int) (f *sensors.Frame, err error) {
	const seed = 0x76696769
	src, err := synth.NewSource(synth.SourceOptions{Name: "check", Seed: seed + uint64(i), Fingers: 1, Impressions: 1, Impression: synth.Preset(0)})
	if err != nil {
		return nil, err
	}
	defer src.Close()
	borrowed, err := src.Next(ctx)
	if err != nil {
		return nil, err
	}
	defer borrowed.Release()
	plane := borrowed.Planes[0]
	return &sensors.Frame{Sensor: "check", Width: borrowed.Width, Height: borrowed.Height, Format: borrowed.Format,
		Planes: [2]sensors.Plane{{Data: slices.Clone(plane.Data), StrideBytes: plane.StrideBytes}}}, nil
}
