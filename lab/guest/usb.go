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

	"vigil/lab/result"
	"vigil/sensors"
	"vigil/sensors/v4l2"
)

// uvcPin is the gadget at its port.
var uvcPin = v4l2.Pin{Place: "platform-dummy_hcd.0-usb-0:1:1.0-video-index0", USB: "1d6b:0102", Serial: "LAB1"}

func usbCases(o *order) []testCase {
	var all []testCase
	add := func(m result.Machine, name string, limit time.Duration, run func(*order) (string, error)) {
		all = append(all, testCase{m, "usb", name, false, limit, run})
	}
	for _, s := range []struct {
		machine result.Machine
		f       sensors.Format
	}{
		{result.USBMJPEG, sensors.MJPEG}, {result.USBYUYV, sensors.YUYV}, {result.USBNV12, sensors.NV12}, {result.USBGrey, sensors.Gray8},
	} {
		add(s.machine, "stream "+s.f.String(), o.each+2*time.Minute, func(o *order) (string, error) { return streamUVC(o, s.f) })
	}
	add(result.USB, "swapped camera (serial)", time.Minute, swapped)
	add(result.USB, "camera does not answer (-110)", time.Minute, deafCamera)
	add(result.USB, "replug USB in mid-stream", time.Duration(o.cycles)*20*time.Second+time.Minute, replugUSB)
	add(result.USB, "reset storm", 2*time.Minute, resetStorm)
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
	c := counter{painter: newPainter(f)}
	if note, err = watch(o, s, c.look); err != nil {
		return note, err
	}
	note += fmt.Sprintf(", %d missing by the camera's count, %d torn", c.missing, c.torn)
	return note, c.err
}

// counter compares frames with what the camera painted. Pictures that the camera sent and the driver did not deliver are
// missing.
type counter struct {
	painter               *painter
	frames, missing, torn int
	last                  uint32
	err                   error // the first
}

func (c *counter) look(f *sensors.Frame) error {
	n, bad := c.painter.read(f)
	if bad != nil {
		c.torn++
	}
	if c.frames > 0 && n != c.last+1 {
		c.missing += int(n - c.last - 1)
		bad = errors.Join(bad, fmt.Errorf("picture %d behind picture %d", n, c.last))
	}
	if c.frames == 0 && c.painter.format == sensors.MJPEG {
		_, err := jpeg.Decode(bytes.NewReader(f.Planes[0].Data))
		bad = errors.Join(bad, err)
	}
	if bad != nil && c.err == nil {
		c.err = fmt.Errorf("frame %d: %w", f.Seq, bad)
	}
	c.frames, c.last = c.frames+1, n
	return nil
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
	if v4l2.StateOf(err) != v4l2.StateSwapped || out != nil {
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

// deafCamera answers too late, once: uvcvideo times out (-110), of which it makes EIO for those who ask it. That has a name,
// and the next try finds the camera well.
func deafCamera(*order) (note string, err error) {
	g, err := plugIn(sensors.YUYV, "LAB1")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, g.unplug()) }()
	if err := g.process.Signal(unix.SIGUSR1); err != nil {
		return "", err
	}
	time.Sleep(200 * time.Millisecond)
	s, err := openUVC(sensors.YUYV)
	if err != nil {
		return "", err
	}
	defer s.Close()
	_, told := next(s, 20*time.Second)
	if v4l2.StateOf(told) != v4l2.StateStalled {
		return "", fmt.Errorf("state %s: %w", v4l2.StateOf(told), told)
	}
	time.Sleep(deafFor - 4*time.Second) // uvcvideo gave up after 5 s; the camera hears again by now
	if err := skim(s, 5); err != nil {
		return "", err
	}
	return "told (" + told.Error() + "), then it runs", nil
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
	note, err := replug(o, s, func() error {
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
func resetStorm(o *order) (note string, err error) {
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
		o.tell("reset %d of %d", i, times)
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
