package v4l2

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"vigil/sensors"
)

// State is what a camera is in, as one word for logs, status and metrics.
type State string

// States of a camera. All but StateRunning are told by a StateError.
const (
	StateRunning   State = "running"
	StateUnplugged State = "unplugged" // no such device at the moment
	StateBusy      State = "busy"      // another process streams from it
	StateSwapped   State = "swapped"   // another camera is where the pinned one should be
	StateFake      State = "fake"      // a camera elsewhere claims to be the pinned one, which is not in its place
	StateRefused   State = "refused"   // the device file is not the device that the kernel says
	StateDenied    State = "denied"    // the device file may not be opened
	StateUnsuited  State = "unsuited"  // it does not offer what the configuration asks for
	StateStalled   State = "stalled"   // it does not answer, or was restarted again and again without a frame
	StateFailed    State = "failed"    // anything else
)

// Errors that a StateError wraps.
var (
	ErrBusy     = errors.New("another process streams from the camera")
	ErrRefused  = errors.New("not the camera that is pinned")
	ErrSwapped  = fmt.Errorf("%w: it was exchanged", ErrRefused)
	ErrFake     = fmt.Errorf("%w: it only looks like it", ErrRefused)
	ErrUnsuited = errors.New("the camera does not offer what is asked for")
	ErrStalled  = errors.New("the camera delivers no frames")
)

// StateError says that the camera does not deliver for now, and in which state it is. It is sensors.ErrUnplugged too: the
// source stays usable.
type StateError struct {
	Sensor string
	State  State
	Err    error
}

func (e *StateError) Error() string {
	return fmt.Sprintf("camera %s is %s: %v", e.Sensor, e.State, e.Err)
}

// Unwrap makes the error sensors.ErrUnplugged and its reason.
func (e *StateError) Unwrap() []error { return []error{sensors.ErrUnplugged, e.Err} }

// StateOf is the state that an error of Next tells: StateRunning for none, StateFailed for those of others.
func StateOf(err error) State {
	var s *StateError
	switch {
	case err == nil:
		return StateRunning
	case errors.As(err, &s):
		return s.State
	case errors.Is(err, sensors.ErrUnplugged):
		return StateUnplugged
	}
	return StateFailed
}

// classify names the state that an error of the kernel or of the search means.
func classify(err error) State {
	switch {
	case errors.Is(err, ErrSwapped):
		return StateSwapped
	case errors.Is(err, ErrFake):
		return StateFake
	case errors.Is(err, ErrRefused):
		return StateRefused
	case errors.Is(err, ErrBusy), errors.Is(err, unix.EBUSY):
		return StateBusy
	case errors.Is(err, ErrUnsuited):
		return StateUnsuited
	case errors.Is(err, ErrStalled), silent(err):
		return StateStalled
	case errors.Is(err, sensors.ErrUnplugged), errors.Is(err, fs.ErrNotExist), gone(err):
		return StateUnplugged
	case errors.Is(err, fs.ErrPermission):
		return StateDenied
	}
	return StateFailed
}

// gone says that the kernel no longer has the device.
func gone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ESHUTDOWN)
}

// silent says that the device, or the bus to it, does not answer as it should: a request timed out (uvcvideo passes on what
// the USB host says, linux/Documentation/driver-api/usb/error-codes), was refused or came damaged.
func silent(err error) bool {
	return slices.ContainsFunc([]error{unix.EIO, unix.ETIMEDOUT, unix.ETIME, unix.EPROTO, unix.EPIPE, unix.EILSEQ, unix.EREMOTEIO},
		func(e error) bool { return errors.Is(err, e) })
}
