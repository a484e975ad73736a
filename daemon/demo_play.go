//go:build !appliance

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/daemon/decide"
	"vigil/fleet"
)

func (d *demo) enroll(ctx context.Context) error {
	bar := newProgress(d.app.env.Stderr, "      people")
	for _, p := range d.cast.spare {
		if len(d.cast.people) == castPeople {
			break
		}
		var pictures [][]byte
		for _, f := range p.enroll {
			data, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			pictures = append(pictures, data)
		}
		e, err := d.ap.Enroll(ctx, p.Name, pictures)
		if errors.Is(err, core.ErrSamples) {
			d.cast.refused = append(d.cast.refused, fmt.Sprintf("%s: %d of %d pictures were good enough", p.Name, e.Samples, len(pictures)))
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		p.id, p.Samples = e.Subject, e.Samples
		d.ids[p.id] = p
		d.cast.people = append(d.cast.people, p)
		bar.update(len(d.cast.people), castPeople)
	}
	return nil
}

// enrollLive enrols the actor from a clip that runs as a camera, sample by sample.
func (d *demo) enrollLive(ctx context.Context) error {
	p := d.cast.actor
	clip := filepath.Join(d.data, "clips", "P1", "student.15fps.mjpeg")
	// The loop keeps the person in front of the camera until there are enough samples.
	cam := config.Sensor{Name: "desk", Driver: "replay", Path: clip, Loop: true}
	if err := d.ap.AddSensor(ctx, cam); err != nil {
		return err
	}
	e, err := d.ap.EnrollAt(ctx, p.Name, cam.Name)
	if err != nil {
		return err
	}
	p.id, p.Samples = e.Subject, e.Samples
	d.ids[p.id] = p
	return d.ap.StopSensor(cam.Name)
}

// showPictures plays all probes as a camera, each for as many frames as a stranger needs, in rounds so that one person's
// pictures lie apart.
func (d *demo) showPictures(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "vigil-demo-pictures")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	shown := map[string]*person{}
	everybody := slices.Concat(d.cast.people, d.cast.strangers)
	for round := range maxProbes {
		for _, p := range everybody {
			if round >= len(p.probes) {
				continue
			}
			link := filepath.Join(dir, fmt.Sprintf("%04d.jpg", len(shown)))
			target, err := filepath.Abs(p.probes[round])
			if err != nil {
				return err
			}
			if err := os.Symlink(target, link); err != nil {
				return err
			}
			shown[link] = p
			p.Shown++
		}
	}
	cam := config.Sensor{Name: "door", Driver: "replay", Path: dir, Step: true, Repeat: d.cfg.Policy.UnknownFrames}
	decisions, err := d.play(ctx, cam, len(shown)*cam.Repeat)
	if err != nil {
		return err
	}
	told := map[string]int{}
	for _, dec := range decisions {
		p := shown[dec.Label]
		if p == nil {
			return fmt.Errorf("decision %s belongs to no picture", dec.ID)
		}
		if p.Enrolled && dec.Outcome == decide.NoMatch {
			continue // somebody in the background, or a face that is not sure enough: the picture counts as not found
		}
		if told[dec.Label]++; p.Enrolled && told[dec.Label] > 1 {
			p.Strays++
		}
		d.judge(p, dec)
	}
	return nil
}

// showClips plays clips in real time: each is one visit, so it must be one event.
func (d *demo) showClips(ctx context.Context) error {
	for i, c := range []struct {
		clip string
		who  *person
	}{
		{"P1/yes", d.cast.actor}, {"P3/book", d.cast.extra}, {"P1/help", d.cast.actor},
	} {
		path := filepath.Join(d.data, "clips", c.clip+".15fps.mjpeg")
		cam := config.Sensor{Name: fmt.Sprintf("gate-%d", i+1), Driver: "replay", Path: path}
		decisions, err := d.play(ctx, cam, 0)
		if err != nil {
			return err
		}
		c.who.Shown++
		for _, dec := range decisions {
			d.judge(c.who, dec)
		}
		c.who.Strays += max(0, len(decisions)-1)
	}
	return nil
}

func (d *demo) judge(p *person, dec core.Decision) {
	switch {
	case dec.Outcome == decide.NoMatch:
		p.Unknown++
	case dec.Outcome == decide.Match && p.Enrolled && dec.Subject == p.id:
		p.Found++
	default:
		p.Wrong++
	}
}

// play runs a sensor to its end and returns its decisions. total is the number of frames, for the progress line.
func (d *demo) play(ctx context.Context, cam config.Sensor, total int) ([]core.Decision, error) {
	w := d.ap.Watch()
	var list []core.Decision
	done := make(chan struct{})
	go func() {
		defer close(done)
		for dec := range w.C {
			if dec.Sensor == cam.Name {
				list = append(list, dec)
			}
		}
	}()
	err := d.ap.AddSensor(ctx, cam)
	if err == nil {
		err = d.await(ctx, cam.Name, total)
	}
	w.Stop()
	<-done
	if w.Lost > 0 {
		err = errors.Join(err, fmt.Errorf("%d decisions were too fast for the demo", w.Lost))
	}
	return list, err
}

// await waits for the end of a sensor and shows how far it is.
func (d *demo) await(ctx context.Context, name string, total int) error {
	bar := newProgress(d.app.env.Stderr, "      frames")
	for {
		tick, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		err := d.ap.WaitSensor(tick, name)
		cancel()
		for _, s := range d.ap.Status().Sensors {
			if s.Name == name {
				bar.update(int(s.Frames), total)
			}
		}
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
	}
}

// command has the management side ask for the status, then erase one person, then try what must be refused.
func (d *demo) command(ctx context.Context) error {
	device := d.ap.DeviceID()
	ask, err := d.manager.Command(device, fleet.CommandStatus, nil)
	if err != nil {
		return err
	}
	r, err := d.manager.Do(ctx, ask)
	if err != nil || r.Status != fleet.StatusOK {
		return fmt.Errorf("status command: %s %s: %w", r.Status, r.Reason, err)
	}
	var s core.Status
	if err := json.Unmarshal(r.Body, &s); err != nil || s.Device != device {
		return fmt.Errorf("status command: answer of device %q: %w", s.Device, err)
	}
	gone := d.cast.actor
	if gone == nil {
		gone = d.cast.fingers[0]
	}
	erase, err := d.manager.Command(device, fleet.CommandSubjectDelete, map[string]string{"subject": gone.id})
	if err != nil {
		return err
	}
	if r, err = d.manager.Do(ctx, erase); err != nil || r.Status != fleet.StatusOK {
		return fmt.Errorf("delete command: %s %s: %w", r.Status, r.Reason, err)
	}
	return d.manager.SendRaw(ctx, device, []byte(`{"cmd":"subject.delete"}`)) // unsigned: must be refused
}
