package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"vigil/sensors"
	"vigil/sensors/v4l2"
)

// delays takes the way of a frame apart: from the driver's stamp until it is in the hands of a consumer who waits, and what
// handing over costs when the frame lies ready.
func delays(o *order) (string, error) {
	if err := vividPattern(single); err != nil {
		return "", err
	}
	s, err := openVivid(single, sensors.YUYV)
	if err != nil {
		return "", err
	}
	defer s.Close()
	var waited, ready, release durations
	const frames = 100
	var due time.Time
	for i := range 2 * frames {
		if i >= frames { // the next one is there by then, and the one behind it is not
			time.Sleep(time.Until(due))
		}
		began := time.Now()
		f, err := next(s, 20*time.Second)
		if err != nil {
			return "", err
		}
		got := time.Now()
		due = f.Captured.Add(time.Second / vividRate * 3 / 2)
		if i < frames {
			waited.add(got.Sub(f.Captured))
		} else if got.Sub(f.Captured) > time.Second/vividRate/8 { // else it came just now
			ready.add(got.Sub(began))
		}
		f.Release()
		release.add(time.Since(got))
		o.tell("%d of %d frames", i+1, 2*frames)
	}
	note := fmt.Sprintf("stamp to a waiting consumer %s; hand over of a ready frame (%d) %s; release %s", &waited, len(ready), &ready, &release)
	if st := s.Stats(); st.Starved+st.Unstamped+st.Damaged > 0 || len(ready) < frames/2 {
		return note, fmt.Errorf("not measured: %+v", st)
	}
	return note, nil
}

// newestFrame reads slower than the camera delivers: what comes must be of the present, and the driver not starved. The
// median is judged, for an emulated machine may stand still for a moment; a backlog would make every frame old.
func newestFrame(*order) (string, error) {
	s, err := openVivid(single, sensors.YUYV)
	if err != nil {
		return "", err
	}
	n := sensors.NewNewest(s)
	defer n.Close()
	var ages durations
	const frames = 20
	for range frames {
		f, err := next(n, 20*time.Second)
		if err != nil {
			return "", err
		}
		ages.add(time.Since(f.Captured))
		f.Release()
		time.Sleep(7 * time.Second / 2 / vividRate)
	}
	st := s.Stats()
	note := fmt.Sprintf("%d frames for a consumer of 3.5 intervals, age %s; %d overwritten, %d left out by the driver, %d lost by us",
		frames, &ages, n.Dropped(), st.Lost-st.Starved, st.Starved+st.LetGo)
	if ages.quantile(500) > 3*time.Second/2/vividRate || n.Dropped() < frames || st.Starved+st.LetGo > 0 {
		return note, errors.New("a frame of the past, or a driver without buffers")
	}
	return note, nil
}

// noCopy shows that planes lie in the mapping of the device, and that a frame costs no allocation.
func noCopy(*order) (string, error) {
	s, err := openVivid(multi, sensors.NV12)
	if err != nil {
		return "", err
	}
	defer s.Close()
	inside := 0
	const frames = 20
	var before, after runtime.MemStats
	for i := range 2 * frames {
		if i == frames {
			runtime.ReadMemStats(&before)
		}
		f, err := s.Next(context.Background())
		if err != nil {
			return "", err
		}
		if i < frames && inMapping(f.Planes[0].Data) && inMapping(f.Planes[1].Data) {
			inside++
		}
		f.Release()
	}
	runtime.ReadMemStats(&after)
	per := float64(after.Mallocs-before.Mallocs) / frames
	note := fmt.Sprintf("%d of %d frames lie in the mapping of the device: 0 copies; %.1f allocations a frame", inside, frames, per)
	if inside != frames || per >= 0.5 {
		return note, errors.New("copied or allocated")
	}
	return note, nil
}

// dmabuf exports the planes of a frame in one and in two buffers of memory, and compares what a GPU would see.
func dmabuf(*order) (string, error) {
	var notes []string
	for _, c := range []struct {
		pin    v4l2.Pin
		f      sensors.Format
		code   string
		planes int
	}{{single, sensors.YUYV, "YUYV", 1}, {multi, sensors.NV12, "NM12", 2}} {
		note, err := exported(c.pin, c.f, c.code, c.planes)
		if err != nil {
			return "", fmt.Errorf("%s: %w", c.code, err)
		}
		notes = append(notes, note)
	}
	return strings.Join(notes, "; "), nil
}

func exported(pin v4l2.Pin, f sensors.Format, code string, planes int) (string, error) {
	o := vividOptions(pin, f)
	o.Code = code
	s, err := v4l2.Open(o)
	if err != nil {
		return "", err
	}
	defer s.Close()
	fr, err := next(s, 20*time.Second)
	if err != nil {
		return "", err
	}
	defer fr.Release()
	total := 0
	for p := range planes {
		fd, err := s.DMABuf(fr, p)
		if err != nil {
			return "", err
		}
		if err := sameMemory(fd, fr.Planes[p].Data); err != nil {
			return "", err
		}
		total += len(fr.Planes[p].Data)
	}
	return fmt.Sprintf("%s: %d bytes in %d DMABUF, the same as in the frame", code, total, planes), nil
}

func paired(*order) (string, error) {
	a, err := openVivid(single, sensors.YUYV)
	if err != nil {
		return "", err
	}
	b, err := openVivid(multi, sensors.Gray8)
	if err != nil {
		return "", err
	}
	p, err := v4l2.NewPair(a, b, time.Second/vividRate/2)
	if err != nil {
		return "", err
	}
	defer p.Close()
	var worst time.Duration
	const pairs = 30
	for range pairs {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		x, y, err := p.Next(ctx)
		cancel()
		if err != nil {
			return "", err
		}
		worst = max(worst, x.Captured.Sub(y.Captured).Abs())
		x.Release()
		y.Release()
	}
	return fmt.Sprintf("%d pairs, at most %.1f ms apart, %d frames without a partner", pairs, worst.Seconds()*1e3, p.Unmatched()), nil
}
