// Package fprint asks the fingerprint readers that libfprint knows, through fprintd on D-Bus (net.reactivated.Fprint). The
// matching is the host's: prints stay with fprintd or in the reader, and no picture comes out. It serves as a second factor
// beside Vigil's own matching, not as a source of frames.
//
// Promises: a device is claimed for one operation at a time and released behind it, whatever came of it; Verify ends with
// one of three answers, match, no match, or an error, never without one. What fprintd asks of the finger meanwhile (again,
// not centred, too short) is passed on. A signal of another device, or from before the operation, is not taken for its
// result. The caller owns the connection; no goroutine is left behind. fprintd decides, with polkit, who may do that.
package fprint

import (
	"context"
	"errors"
	"fmt"

	"github.com/godbus/dbus/v5"
)

// Names on the bus.
const (
	service       = "net.reactivated.Fprint"
	managerPath   = "/net/reactivated/Fprint/Manager"
	managerIface  = "net.reactivated.Fprint.Manager"
	deviceIface   = "net.reactivated.Fprint.Device"
	errorPrefix   = "net.reactivated.Fprint.Error."
	AnyFinger     = "any"
	signalsWaited = 64
)

// Errors that callers match.
var (
	ErrNoDevice    = errors.New("no fingerprint reader that libfprint knows")
	ErrInUse       = errors.New("the fingerprint reader is claimed by somebody else")
	ErrNotEnrolled = errors.New("no finger of this user is enrolled with fprintd")
	ErrDenied      = errors.New("fprintd does not allow it: polkit must grant net.reactivated.fprint.device.verify")
	// ErrGone: the reader was unplugged, or fprintd ended, amid an operation.
	ErrGone = errors.New("the fingerprint reader is gone")
)

// Device is one reader of fprintd. It is safe for concurrent use; a second operation at a time is ErrInUse.
type Device struct {
	conn *dbus.Conn
	obj  dbus.BusObject
}

// Devices lists the readers.
func Devices(ctx context.Context, conn *dbus.Conn) ([]*Device, error) {
	var paths []dbus.ObjectPath
	err := conn.Object(service, managerPath).CallWithContext(ctx, managerIface+".GetDevices", 0).Store(&paths)
	if err != nil {
		return nil, named(err)
	}
	list := make([]*Device, len(paths))
	for i, p := range paths {
		list[i] = &Device{conn, conn.Object(service, p)}
	}
	return list, nil
}

// Default is the reader that fprintd prefers. Errors: ErrNoDevice.
func Default(ctx context.Context, conn *dbus.Conn) (*Device, error) {
	var path dbus.ObjectPath
	err := conn.Object(service, managerPath).CallWithContext(ctx, managerIface+".GetDefaultDevice", 0).Store(&path)
	if err != nil {
		return nil, named(err)
	}
	return &Device{conn, conn.Object(service, path)}, nil
}

// Name is what the reader is called.
func (d *Device) Name() (string, error) {
	v, err := d.obj.GetProperty(deviceIface + ".name")
	if err != nil {
		return "", named(err)
	}
	name, _ := v.Value().(string)
	return name, nil
}

// Fingers are the enrolled fingers of a user of this machine, such as "right-index-finger". Errors: ErrNotEnrolled.
func (d *Device) Fingers(ctx context.Context, user string) (list []string, err error) {
	err = d.obj.CallWithContext(ctx, deviceIface+".ListEnrolledFingers", 0, user).Store(&list)
	return list, named(err)
}

// Verify asks whether a finger of the user touches the reader; finger is AnyFinger or one of Fingers. tell, if not nil, gets
// what fprintd asks for meanwhile, such as "verify-retry-scan". It blocks until somebody touches it or the context ends.
// Errors: ErrInUse, ErrNotEnrolled, ErrDenied, ErrGone, the context's.
func (d *Device) Verify(ctx context.Context, user, finger string, tell func(status string)) (match bool, err error) {
	status, err := d.operate(ctx, user, operation{"VerifyStart", "VerifyStop", "VerifyStatus", finger, tell})
	switch {
	case err != nil:
		return false, err
	case status == "verify-match":
		return true, nil
	case status == "verify-no-match":
		return false, nil
	case status == "verify-disconnected":
		return false, ErrGone
	}
	return false, fmt.Errorf("fprintd says %q", status)
}

// Enroll enrols a finger of the user with fprintd, which keeps its print. tell gets each stage. Errors: as for Verify.
func (d *Device) Enroll(ctx context.Context, user, finger string, tell func(status string)) error {
	status, err := d.operate(ctx, user, operation{"EnrollStart", "EnrollStop", "EnrollStatus", finger, tell})
	switch {
	case err != nil:
		return err
	case status == "enroll-completed":
		return nil
	case status == "enroll-disconnected":
		return ErrGone
	}
	return fmt.Errorf("fprintd says %q", status)
}

// Delete removes the prints of a user from fprintd.
func (d *Device) Delete(ctx context.Context, user string) error {
	return d.claimed(ctx, user, func() error {
		return named(d.obj.CallWithContext(ctx, deviceIface+".DeleteEnrolledFingers2", 0).Err)
	})
}

// claimed runs f while the device is claimed for the user.
func (d *Device) claimed(ctx context.Context, user string, f func() error) (err error) {
	if err := d.obj.CallWithContext(ctx, deviceIface+".Claim", 0, user).Err; err != nil {
		return named(err)
	}
	defer func() { // even if the context has ended
		if e := d.obj.CallWithContext(context.WithoutCancel(ctx), deviceIface+".Release", 0).Err; e != nil && err == nil {
			err = named(e)
		}
	}()
	return f()
}

// operation is one that is started, reports by signals, and must be stopped.
type operation struct {
	start, stop, signal, finger string
	tell                        func(string)
}

// operate runs an operation to its last signal and returns what that says.
func (d *Device) operate(ctx context.Context, user string, o operation) (status string, err error) {
	signals := make(chan *dbus.Signal, signalsWaited)
	match := []dbus.MatchOption{dbus.WithMatchObjectPath(d.obj.Path()), dbus.WithMatchInterface(deviceIface), dbus.WithMatchMember(o.signal)}
	if err := d.conn.AddMatchSignalContext(ctx, match...); err != nil {
		return "", err
	}
	gone := []dbus.MatchOption{
		dbus.WithMatchSender("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, service),
	}
	if err := d.conn.AddMatchSignalContext(ctx, gone...); err != nil {
		return "", errors.Join(err, d.conn.RemoveMatchSignal(match...))
	}
	defer func() { err = errors.Join(err, d.conn.RemoveMatchSignal(match...), d.conn.RemoveMatchSignal(gone...)) }()
	err = d.claimed(ctx, user, func() error {
		d.conn.Signal(signals)
		defer d.conn.RemoveSignal(signals)
		if err := d.obj.CallWithContext(ctx, deviceIface+"."+o.start, 0, o.finger).Err; err != nil {
			return named(err)
		}
		var failed error
		status, failed = d.follow(ctx, signals, &o)
		if errors.Is(failed, ErrGone) {
			return failed
		}
		stop := d.obj.CallWithContext(context.WithoutCancel(ctx), deviceIface+"."+o.stop, 0).Err
		if failed == nil && isError(stop, "NoActionInProgress") {
			stop = nil // it ended by itself
		}
		return errors.Join(failed, named(stop))
	})
	return status, err
}

// follow waits for the operation's last signal.
func (d *Device) follow(ctx context.Context, signals <-chan *dbus.Signal, o *operation) (string, error) {
	for {
		select {
		case s, ok := <-signals:
			if !ok {
				return "", ErrGone
			}
			if s.Name == "org.freedesktop.DBus.NameOwnerChanged" && len(s.Body) > 0 && s.Body[0] == service {
				return "", ErrGone
			}
			var status string
			var done bool
			if s.Path != d.obj.Path() || s.Name != deviceIface+"."+o.signal || dbus.Store(s.Body, &status, &done) != nil {
				continue
			}
			if done {
				return status, nil
			}
			if o.tell != nil {
				o.tell(status)
			}
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

func isError(err error, name string) bool {
	var e dbus.Error
	return errors.As(err, &e) && e.Name == errorPrefix+name
}

// named makes fprintd's errors ours.
func named(err error) error {
	for name, ours := range map[string]error{
		"NoSuchDevice": ErrNoDevice, "AlreadyInUse": ErrInUse, "NoEnrolledPrints": ErrNotEnrolled, "PermissionDenied": ErrDenied,
	} {
		if isError(err, name) {
			return fmt.Errorf("%w: %w", ours, err)
		}
	}
	return err
}
