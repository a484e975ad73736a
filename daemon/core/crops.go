package core

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/png"
	"math"
	"time"

	"vigil/infer"
	"vigil/infer/finger"
	"vigil/infer/sched"
	"vigil/kernels"
	"vigil/sensors"
	"vigil/sensors/picture"
	"vigil/store"
)

// A crop is a picture of an enrolment from which its template can be made again with another model: the surroundings of
// the face, or the whole print. It is kept only where policy.keep_enrolment_crops allows it. Kept form: version (1 byte),
// pixels per inch as big-endian float64 bits (0 for a face), then a PNG.
const (
	cropVersion = 1
	cropHeader  = 1 + 8
	// cropScale is how much larger than the box of the face its crop is, so that a detector finds it again.
	cropScale = 2
	// maxCropSide bounds a face's crop in pixels; models see a face of 112 to 160.
	maxCropSide = 448
	// maxPrintSide bounds a print's, so that it fits the store whatever it shows; larger ones are not kept.
	maxPrintSide = 800
)

// rawCrop is a crop before it is compressed, which is not done in a turn.
type rawCrop struct {
	img image.Image
	pix []byte // of img
	dpi float64
}

func (r *rawCrop) wipe() { clear(r.pix) }

// crop copies what shows p, if the policy lets it be kept; nil otherwise.
func (t *turn) crop(p *presentation) *rawCrop {
	if !t.unit.app.cfg.Policy.KeepEnrolmentCrops {
		return nil
	}
	im, err := infer.ViewFrame(t.frame)
	if err != nil {
		return nil // it was seen, so it can be read
	}
	if t.unit.kind == Finger {
		if im.Width > maxPrintSide || im.Height > maxPrintSide {
			return nil
		}
		g := image.NewGray(image.Rect(0, 0, im.Width, im.Height))
		kernels.Gray(g.Pix, im.Width, im.Height, &im)
		dpi := t.dpi
		if dpi == 0 {
			dpi = finger.DPI
		}
		return &rawCrop{img: g, pix: g.Pix, dpi: dpi}
	}
	return faceCrop(&im, p.box)
}

// faceCrop is the surroundings of a box, inside the picture, scaled down to maxCropSide.
func faceCrop(im *kernels.Image, box [4]float32) *rawCrop {
	side := cropScale * max(box[2], box[3])
	x0, y0 := max(int(box[0]+box[2]/2-side/2), 0), max(int(box[1]+box[3]/2-side/2), 0)
	x1, y1 := min(int(box[0]+box[2]/2+side/2), im.Width), min(int(box[1]+box[3]/2+side/2), im.Height)
	if x1 <= x0 || y1 <= y0 {
		return nil
	}
	r := kernels.Rect{X: x0, Y: y0, W: x1 - x0, H: y1 - y0}
	scale := min(1, maxCropSide/float64(max(r.W, r.H)))
	w, h := max(int(float64(r.W)*scale), 1), max(int(float64(r.H)*scale), 1)
	planes := make([]float32, 3*w*h)
	defer clear(planes)
	kernels.CropResize(planes, w, h, im, r, true, &kernels.Norm{InvStd: [3]float32{1, 1, 1}})
	out := image.NewNRGBA(image.Rect(0, 0, w, h))
	for i := range w * h {
		for c := range 3 {
			out.Pix[4*i+c] = uint8(min(max(planes[c*w*h+i], 0), 255) + 0.5)
		}
		out.Pix[4*i+3] = 255
	}
	return &rawCrop{img: out, pix: out.Pix}
}

// encode compresses a crop.
func (r *rawCrop) encode() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte(cropVersion)
	b.Write(binary.BigEndian.AppendUint64(nil, math.Float64bits(r.dpi)))
	if err := png.Encode(&b, r.img); err != nil {
		return nil, fmt.Errorf("cannot keep a picture of the enrolment: %w", err)
	}
	return b.Bytes(), nil
}

// parseCrop reads the kept form. The picture is checked when it is decoded.
func parseCrop(b []byte) (pic Picture, err error) {
	if len(b) <= cropHeader || b[0] != cropVersion {
		return pic, fmt.Errorf("a kept picture of %d bytes cannot be read by this version", len(b))
	}
	dpi := math.Float64frombits(binary.BigEndian.Uint64(b[1:]))
	if !(dpi >= 0 && dpi <= 2000) {
		return pic, fmt.Errorf("a kept picture has %v dpi", dpi)
	}
	return Picture{Data: b[cropHeader:], DPI: dpi}, nil
}

// encodeCrops are the kept forms of the crops of samples.
func encodeCrops(samples []sample) (list [][]byte, err error) {
	for i := range samples {
		if c := samples[i].crop; c != nil {
			b, err := c.encode()
			if err != nil {
				return list, err
			}
			list = append(list, b)
		}
	}
	return list, nil
}

// Progress is how far the templates of the bundle before are made again with the one in use.
type Progress struct {
	People int `json:"people"` // who had to be made again when it began
	Done   int `json:"done"`
	// NoPictures were enrolled without pictures being kept: they must be enrolled again by themselves. Failed had pictures in
	// which the model finds nobody, or not the same person.
	NoPictures int `json:"no_pictures"`
	Failed     int `json:"failed"`
}

// catchUp makes the templates of people whom only the bundle before knows again from the pictures of their enrolment, as
// background work that yields to everything else. What it cannot is counted and tried again the next time.
func (u *Unit) catchUp(ctx context.Context) error {
	g := u.now()
	if g == nil || g.elder == nil {
		return nil
	}
	ctx = sched.WithClass(ctx, sched.Bulk)
	ids := g.elder.gallery.MissingIDs(g.gallery)
	p := Progress{People: len(ids)}
	for _, id := range ids {
		err := u.extractAgain(ctx, g, id)
		switch {
		case err == nil:
			p.Done++
		case errors.Is(err, errNoCrops):
			p.NoPictures++
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errExchanged):
			return nil
		default:
			p.Failed++
			u.app.log.Warn("templates cannot be made again", "modality", u.kind, "subject", id, "err", err)
		}
		u.mu.Lock()
		u.progress = new(p)
		u.mu.Unlock()
	}
	return nil
}

// errNoCrops: no picture of the person's enrolment is kept.
var errNoCrops = errors.New("no picture of the enrolment is kept: enrol the person again")

// extractAgain makes the templates of one person with the bundle in use.
func (u *Unit) extractAgain(ctx context.Context, g *generation, id string) error {
	samples, err := u.samplesOf(ctx, id)
	defer func() {
		for i := range samples {
			samples[i].wipe()
		}
	}()
	if err != nil {
		return err
	}
	if len(samples) == 0 {
		return ErrSamples
	}
	if err := g.onePerson(samples); err != nil {
		return err
	}
	a := u.app
	a.enrolling.Lock()
	defer a.enrolling.Unlock()
	if now := u.now(); now == nil || now.id != g.id {
		return errExchanged
	}
	templates := make([]store.Template, len(samples))
	for i, s := range samples {
		templates[i] = store.Template{ModelID: g.id, Values: s.values, Scale: s.scale, Quality: s.quality}
	}
	return a.store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.AddTemplates(id, 0, templates); err != nil {
			return err
		}
		_, err := tx.AppendAudit(store.AuditEvent{Time: a.now().UTC(), Type: "enroll.again", Subject: id,
			Detail: map[string]any{"templates": len(templates), "modality": u.kind, "model": g.id}})
		return err
	})
}

// samplesOf sends the kept pictures of a person through the engines. Pictures that give no sample are left out. Errors:
// errNoCrops, those of the store, the context's.
func (u *Unit) samplesOf(ctx context.Context, id string) (samples []sample, err error) {
	var crops [][]byte
	err = u.app.store.View(ctx, func(tx *store.Tx) (err error) {
		crops, err = tx.Crops(id)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, c := range crops {
			clear(c)
		}
	}()
	found := false
	for _, c := range crops {
		pic, err := parseCrop(c)
		if err != nil {
			return samples, err
		}
		if (pic.DPI != 0) != (u.kind == Finger) {
			continue // of the other modality
		}
		found = true
		s, err := u.sampleOf(ctx, pic)
		if ctx.Err() != nil {
			return samples, ctx.Err()
		}
		if err == nil {
			samples = append(samples, s)
		}
	}
	if !found {
		return nil, errNoCrops
	}
	return samples, nil
}

// sampleOf is the sample of one kept picture. It was good enough when it was taken, by the bundle of then: only whether
// anybody is in it counts.
func (u *Unit) sampleOf(ctx context.Context, pic Picture) (s sample, err error) {
	pool := sensors.NewPool(1)
	defer pool.Close()
	f, err := picture.Decode(ctx, pool, pic.Data)
	if err != nil {
		return s, err
	}
	defer f.Release()
	t := &turn{frame: f, dpi: pic.DPI, then: func(t *turn) error {
		p, err := u.main(t.seen)
		if err != nil {
			return err
		}
		if len(p.values) == 0 {
			return ErrPresentationAttack
		}
		s = t.sample(p)
		return nil
	}}
	return s, u.do(ctx, sched.Bulk, time.Time{}, t)
}
