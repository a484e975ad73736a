package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/jpeg"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vigil/sensors"
	"vigil/sensors/v4l2"
)

// uvcPin is the gadget at its port.
var uvcPin = v4l2.Pin{Place: "platform-dummy_hcd.0-usb-0:1:1.0-video-index0", USB: "1d6b:0102", Serial: "LAB1"}

func usbCases(o *order) []testCase {
	var all []testCase
	add := func(name string, limit time.Duration, run func(*order) (string, error)) {
		all = append(all, testCase{"usb", name, limit, run})
	}
	for _, f := range []sensors.Format{sensors.MJPEG, sensors.YUYV, sensors.NV12, sensors.Gray8} {
		add("stream "+f.String(), o.each+time.Minute, func(o *order) (string, error) { return streamUVC(o, f) })
	}
	add("swapped camera (serial)", time.Minute, swapped)
	add("replug USB in mid-stream", time.Duration(o.cycles)*20*time.Second+time.Minute, replugUSB)
	add("reset storm", 2*time.Minute, resetStorm)
	return all
}

func openUVC(f sensors.Format) (*v4l2.Source, error) {
	return v4l2.Open(v4l2.Options{Name: "usb", Pin: uvcPin, Format: f, Buffers: 8, Timeout: 10 * time.Second})
}

// first waits for a frame of a camera that was just plugged in. That it is not there yet may be told first.
func first(s *v4l2.Source) (*sensors.Frame, error) {
	for end := time.Now().Add(40 * time.Second); ; {
		f, err := next(s, 30*time.Second)
		if err == nil || time.Now().After(end) || !passing(err) {
			return f, err
		}
	}
}

// passing says that an error is of the time while a camera comes up.
func passing(err error) bool {
	return isSkipped(err) || errors.Is(err, sensors.ErrUnplugged) && !errors.Is(err, v4l2.ErrRefused)
}

func isSkipped(err error) bool {
	var skipped *sensors.SkippedError
	return errors.As(err, &skipped)
}

// streamUVC streams one format over the bus and compares every byte with what was sent.
func streamUVC(o *order, f sensors.Format) (note string, err error) {
	g, err := plugIn(f, "LAB1")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, g.unplug()) }()
	s, err := openUVC(f)
	if err != nil {
		return "", err
	}
	defer s.Close()
	look := newPainter(f)
	fr, err := first(s)
	if err != nil {
		return "", err
	}
	began, number, torn, lost, frames, last := time.Now(), fr.Seq, 0, 0, 0, uint32(0)
	for {
		n, bad := look.read(fr)
		if bad != nil {
			torn++
			err = bad
		}
		if frames > 0 && n != last+1 {
			lost++
		}
		if frames == 0 && f == sensors.MJPEG {
			if _, err := jpeg.Decode(bytes.NewReader(fr.Planes[0].Data)); err != nil {
				return "", err
			}
		}
		frames++
		last = n
		fr.Release()
		if time.Since(began) > o.each {
			break
		}
		if fr, err = next(s, 30*time.Second); err != nil {
			return "", fmt.Errorf("after %d frames: %w", frames, err)
		}
	}
	st := s.Stats()
	note = fmt.Sprintf("%d frames at %.1f of %d fps, %d lost by counter, %d by sequence, %d torn, %d damaged, %d let go, first was number %d",
		frames, float64(frames-1)/time.Since(began).Seconds(), uvcRate, lost, st.Lost, torn, st.Damaged, st.LetGo, number)
	if lost+torn > 0 || st.Lost+st.Damaged+st.LetGo+st.Restarts+st.Unstamped > 0 || frames < 5 {
		return note, errors.Join(fmt.Errorf("not every frame came whole: %+v", st), err)
	}
	return note, nil
}

// swapped plugs in another camera of the same make, then the right one.
func swapped(*order) (string, error) {
	g, err := plugIn(sensors.YUYV, "LAB2")
	if err != nil {
		return "", err
	}
	s, err := openUVC(sensors.YUYV)
	if err != nil {
		return "", errors.Join(err, g.unplug())
	}
	defer s.Close()
	for {
		_, err = next(s, 20*time.Second)
		if v4l2.StateOf(err) != v4l2.StateUnplugged {
			break
		}
	}
	out := g.unplug()
	if v4l2.StateOf(err) != v4l2.StateRefused || out != nil {
		return "", fmt.Errorf("state %s: %w; %v", v4l2.StateOf(err), err, out)
	}
	told := err
	if g, err = plugIn(sensors.YUYV, "LAB1"); err != nil {
		return "", err
	}
	f, err := first(s)
	if err != nil {
		return "", errors.Join(err, g.unplug())
	}
	f.Release()
	return "refused (" + told.Error() + "), then the right one runs", g.unplug()
}

func replugUSB(o *order) (string, error) {
	g, err := plugIn(sensors.YUYV, "LAB1")
	if err != nil {
		return "", err
	}
	s, err := openUVC(sensors.YUYV)
	if err != nil {
		return "", errors.Join(err, g.unplug())
	}
	defer s.Close()
	if f, err := first(s); err == nil {
		f.Release()
	}
	note, err := replug(s, o.cycles, func() error {
		old := g
		g = nil
		return old.unplug()
	}, func() error {
		var err error
		g, err = plugIn(sensors.YUYV, "LAB1")
		return err
	})
	if g != nil {
		err = errors.Join(err, g.unplug())
	}
	return note, err
}

// resetStorm resets the port while it streams. uvcvideo lets go and takes the camera again each time.
func resetStorm(*order) (note string, err error) {
	g, err := plugIn(sensors.YUYV, "LAB1")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, g.unplug()) }()
	s, err := openUVC(sensors.YUYV)
	if err != nil {
		return "", err
	}
	defer s.Close()
	const times = 20
	var before usage
	for i := range times {
		f, err := first(s)
		if err != nil {
			return "", fmt.Errorf("reset %d: %w", i, err)
		}
		f.Release()
		if i == 2 {
			before = measure()
		}
		go func() { drain(s) }()
		if err := resetUSB(); err != nil {
			return "", err
		}
	}
	f, err := first(s)
	if err != nil {
		return "", err
	}
	f.Release()
	after, st := measure(), s.Stats()
	note = fmt.Sprintf("%d resets, %d opens, %d restarts; descriptors %d -> %d, mappings %d -> %d", times, st.Connects, st.Restarts,
		before.files, after.files, before.maps, after.maps)
	if after.files != before.files || after.maps != before.maps {
		return note, errors.New("something is left over")
	}
	return note, nil
}

// drain reads for a moment, as a consumer does while a port is reset.
func drain(s *v4l2.Source) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	for ctx.Err() == nil {
		if f, err := s.Next(ctx); err == nil {
			f.Release()
		}
	}
}

// resetUSB resets the port of the gadget (USBDEVFS_RESET).
func resetUSB() error {
	devices, _ := filepath.Glob("/sys/bus/usb/devices/*/idVendor")
	for _, d := range devices {
		text, err := os.ReadFile(d)
		serial, _ := os.ReadFile(filepath.Join(filepath.Dir(d), "serial"))
		if err != nil || strings.TrimSpace(string(serial)) != "LAB1" || !strings.HasPrefix(string(text), "1d6b") {
			continue
		}
		var bus, dev int
		uevent, err := os.ReadFile(filepath.Join(filepath.Dir(d), "uevent"))
		if err != nil {
			return err
		}
		for line := range strings.SplitSeq(string(uevent), "\n") {
			if name, ok := strings.CutPrefix(line, "DEVNAME="); ok {
				if _, err := fmt.Sscanf(name, "bus/usb/%d/%d", &bus, &dev); err != nil {
					return err
				}
			}
		}
		fd, err := unix.Open(fmt.Sprintf("/dev/bus/usb/%03d/%03d", bus, dev), unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return errors.Join(unix.IoctlSetInt(fd, 0x5514, 0), unix.Close(fd))
	}
	return errors.New("the camera is not on the bus")
}
