package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vigil/sensors"
	"vigil/sensors/v4l2"
)

// gadget is a plugged-in USB camera: a process of its own (device.go), as the camera is a machine of its own. To unplug it
// is to kill it: it has no time for a goodbye, and the kernel takes it off the bus.
type gadget struct {
	serial  string
	process *os.Process
	said    *os.File // what it complained of
}

const (
	gadgetDir     = "/dev/gadget"
	gadgetProgram = "usb-camera" // the first argument that makes this program the camera
)

// plugIn makes the camera appear on the bus, and waits until the host has made a video device of it. When it does not
// because gadgetfs lost a request, that is no fault of what is tested: the camera is plugged in again.
func plugIn(f sensors.Format, serial string) (g *gadget, err error) {
	for range 3 {
		before := lostRequests.Load()
		if g, err = plugInOnce(f, serial); err == nil || lostRequests.Load() == before {
			break
		}
	}
	return g, err
}

func plugInOnce(f sensors.Format, serial string) (*gadget, error) {
	if _, err := os.Stat(gadgetDir); err != nil {
		if err := errors.Join(os.Mkdir(gadgetDir, 0o700), unix.Mount("gadgetfs", gadgetDir, "gadgetfs", 0, "")); err != nil {
			return nil, fmt.Errorf("cannot mount gadgetfs: %w", err)
		}
	}
	said, err := os.OpenFile("/tmp/usb-camera", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	g := &gadget{serial: serial, said: said}
	args := []string{"/init", gadgetProgram, strconv.Itoa(int(f)), serial}
	if g.process, err = os.StartProcess("/init", args, &os.ProcAttr{Files: []*os.File{nil, said, said}, Env: os.Environ()}); err != nil {
		return nil, errors.Join(err, said.Close())
	}
	if !g.appears() {
		return nil, errors.Join(errors.New("the host makes no video device of the camera"), g.unplug())
	}
	return g, nil
}

// appears says whether the host has made a video device of it, in the time that one request may take to time out.
func (g *gadget) appears() bool {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		all, err := v4l2.List()
		if err == nil && slices.ContainsFunc(all, func(id v4l2.Identity) bool { return id.Serial == g.serial }) {
			return true
		}
	}
	return false
}

// lostRequest is what the camera says when gadgetfs lost a request of the host (device.go); lostRequests counts them, and
// the table tells.
const lostRequest = "gadgetfs lost a request"

var lostRequests atomic.Int32

// unplug takes the camera off the bus. What else it complained of is an error.
func (g *gadget) unplug() error {
	err := g.process.Kill()
	if _, wait := g.process.Wait(); wait != nil {
		err = errors.Join(err, wait)
	}
	text, read := os.ReadFile(g.said.Name())
	err = errors.Join(err, read, g.said.Close())
	for line := range strings.Lines(string(text[:min(len(text), 2000)])) {
		switch line = strings.TrimSpace(line); line {
		case lostRequest:
			lostRequests.Add(1)
		case "":
		default:
			err = errors.Join(err, fmt.Errorf("the camera says %q", line))
		}
	}
	return err
}
