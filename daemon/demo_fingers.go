//go:build !appliance

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"

	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/daemon/decide"
	"vigil/sensors/synth"
)

// Sizes of the part of the cast that is generated: fingers of nobody, by seed.
const (
	castFingers    = 12
	strangeFingers = 12
	fingerSeed     = 4_000_000 // of the first finger to be enrolled
	strangeSeed    = 4_100_000 // of the first stranger
	enrollTouches  = 4
	shownTouches   = 3
	firstShown     = 20 // touches before it were used to enrol
	fingerSeverity = "normal"
)

// castTheFingers names the people behind the fingers.
func (c *cast) castTheFingers() {
	for i := range castFingers {
		c.fingers = append(c.fingers, &person{Name: fmt.Sprintf("finger %d (generated)", i+1), Enrolled: true, seed: fingerSeed + uint64(i)})
	}
	for i := range strangeFingers {
		c.strange = append(c.strange, &person{Name: fmt.Sprintf("strange finger %d", i+1), seed: strangeSeed + uint64(i)})
	}
}

// enrollFingers enrols all but the last finger from pictures, and the last by touching the reader.
func (d *demo) enrollFingers(ctx context.Context) error {
	u, err := d.ap.Unit(core.Finger)
	if err != nil {
		return err
	}
	bar := newProgress(d.app.env.Stderr, "      fingers")
	last := len(d.cast.fingers) - 1
	for i, p := range d.cast.fingers[:last] {
		pictures, err := touches(p.seed, enrollTouches)
		if err != nil {
			return err
		}
		e, err := u.Enroll(ctx, core.Person{Name: p.Name}, pictures)
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		d.enrolled(p, e)
		bar.update(i+1, len(d.cast.fingers))
	}
	p := d.cast.fingers[last]
	reader := readerOf(fmt.Sprintf("desk-%d", last), p.seed, 1, 0, 0)
	if err := d.ap.AddSensor(ctx, reader); err != nil {
		return err
	}
	e, err := d.ap.EnrollAt(ctx, p.Name, reader.Name)
	if err = errors.Join(err, d.ap.StopSensor(reader.Name)); err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	d.enrolled(p, e)
	bar.update(len(d.cast.fingers), len(d.cast.fingers))
	return nil
}

// enrolled notes whom the device knows by which id.
func (d *demo) enrolled(p *person, e core.Enrolled) {
	p.id, p.Samples = e.Subject, e.Samples
	d.ids[p.id] = p
}

// readerOf is a reader that generated fingers touch one after the other; impressions 0 means without end.
func readerOf(name string, seed uint64, fingers, impressions int, first int64) config.Sensor {
	c := config.Sensor{
		Name: name, Driver: config.DriverSynth, Modality: core.Finger, Seed: int64(seed), Fingers: fingers,
		Impressions: impressions, FirstTouch: first, Severity: fingerSeverity,
	}
	if impressions == 0 {
		c.Impressions, c.Rate = 1000, 10
	}
	return c
}

// touches makes pictures of a generated finger as a file of a reader would hold them.
func touches(seed uint64, n int) ([]core.Picture, error) {
	f, err := synth.NewFinger(seed, synth.Options{})
	if err != nil {
		return nil, err
	}
	var list []core.Picture
	for i := range n {
		im, err := f.Impression(uint64(i), synth.Preset(synth.Normal))
		if err != nil {
			return nil, err
		}
		var b bytes.Buffer
		if err := png.Encode(&b, &image.Gray{Pix: im.Gray, Stride: im.Width, Rect: image.Rect(0, 0, im.Width, im.Height)}); err != nil {
			return nil, err
		}
		list = append(list, core.Picture{Data: b.Bytes()})
	}
	return list, nil
}

// showFingers has the enrolled fingers and then strange ones touch a reader.
func (d *demo) showFingers(ctx context.Context) error {
	for _, g := range []struct {
		name   string
		people []*person
	}{{"reader-1", d.cast.fingers}, {"reader-2", d.cast.strange}} {
		bySeed := map[string]*person{}
		for _, p := range g.people {
			bySeed[fmt.Sprint(p.seed)] = p
			p.Shown += shownTouches
		}
		reader := readerOf(g.name, g.people[0].seed, len(g.people), shownTouches, firstShown)
		decisions, err := d.play(ctx, reader, len(g.people)*shownTouches)
		if err != nil {
			return err
		}
		for _, dec := range decisions {
			seed, _, _ := bytes.Cut([]byte(dec.Label), []byte("_"))
			p := bySeed[string(seed)]
			if p == nil {
				return fmt.Errorf("decision %s belongs to no touch", dec.ID)
			}
			if dec.Outcome == decide.LowQuality {
				continue // counts as not found
			}
			d.judge(p, dec)
		}
	}
	return nil
}
