package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"vigil/sensors"
	"vigil/sensors/v4l2"
)

// replugVivid takes the camera away in mid-stream and gives it back, again and again.
func replugVivid(o *order) (string, error) {
	s, err := openVivid(single, sensors.YUYV)
	if err != nil {
		return "", err
	}
	defer s.Close()
	return replug(o, s, func() error { return bind("unbind") }, func() error { return bind("bind") })
}

func bind(what string) error {
	return os.WriteFile("/sys/bus/platform/drivers/vivid/"+what, []byte("vivid.0"), 0)
}

// replug runs cycles of: a frame, held; unplugged, told; plugged in, a frame. At the end nothing may be left over.
func replug(o *order, s *v4l2.Source, out, in func() error) (string, error) {
	var before, after usage
	var worst time.Duration
	for i := range o.cycles + 1 {
		o.tell("cycle %d of %d", i, o.cycles)
		f, err := first(s)
		if err != nil {
			return "", fmt.Errorf("cycle %d: %w", i, err)
		}
		if i == 1 {
			f.Release()
			before = measure()
			if f, err = next(s, 30*time.Second); err != nil {
				return "", err
			}
		}
		if i == o.cycles {
			f.Release()
			break
		}
		if err := out(); err != nil {
			return "", fmt.Errorf("cycle %d: cannot unplug: %w", i, err)
		}
		pixel := f.Planes[0].Data[0]                   // held across the unplug: must still be there
		for err = nil; err == nil || isSkipped(err); { // the picture that was on its way may come damaged
			var more *sensors.Frame
			if more, err = next(s, 30*time.Second); err == nil {
				more.Release()
			}
		}
		if v4l2.StateOf(err) != v4l2.StateUnplugged || f.Planes[0].Data[0] != pixel {
			return "", fmt.Errorf("cycle %d: state %s: %w", i, v4l2.StateOf(err), err)
		}
		f.Release()
		if err := in(); err != nil {
			return "", fmt.Errorf("cycle %d: cannot plug in: %w", i, err)
		}
		began := time.Now()
		if f, err = first(s); err != nil {
			return "", fmt.Errorf("cycle %d: %w", i, err)
		}
		worst = max(worst, time.Since(began))
		f.Release()
	}
	after = measure()
	st := s.Stats()
	note := fmt.Sprintf("%d cycles, %d opens, back within %.1f s; descriptors %d -> %d, mappings %d -> %d, goroutines %d -> %d, kernel %d -> %d KiB",
		o.cycles, st.Connects, worst.Seconds(), before.files, after.files, before.maps, after.maps, before.goroutines, after.goroutines,
		before.kernelKiB, after.kernelKiB)
	before.kernelKiB, after.kernelKiB = 0, 0 // of everything that the kernel does: to be seen, not judged
	if after != before {
		return note, errors.New("something is left over")
	}
	return note, nil
}
