package fprint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/godbus/dbus/v5"
)

// Reader is the reader that fprintd prefers, over a connection of its own, which is made when it is needed and again when it
// was lost. It is safe for concurrent use. Whoever made it calls Close.
type Reader struct {
	address string

	mu     sync.Mutex
	conn   *dbus.Conn
	closed bool
}

// Open names the bus: the path of its socket, or nothing for the system's. Nothing is connected before the first use.
func Open(socket string) *Reader {
	r := &Reader{}
	if socket != "" {
		r.address = "unix:path=" + socket
	}
	return r
}

// device is the reader of now.
func (r *Reader) device(ctx context.Context) (*Device, error) {
	conn, err := r.connect()
	if err != nil {
		return nil, err
	}
	d, err := Default(ctx, conn)
	if e := new(dbus.Error); errors.As(err, e) && e.Name == "org.freedesktop.DBus.Error.ServiceUnknown" {
		return nil, fmt.Errorf("%w: fprintd is not installed: %w", ErrNoDevice, err)
	}
	return d, err
}

func (r *Reader) connect() (*dbus.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, os.ErrClosed
	}
	if r.conn != nil && r.conn.Connected() {
		return r.conn, nil
	}
	dial := dbus.ConnectSystemBus
	if r.address != "" {
		dial = func(o ...dbus.ConnOption) (*dbus.Conn, error) { return dbus.Connect(r.address, o...) }
	}
	conn, err := dial()
	if err != nil {
		return nil, fmt.Errorf("%w: no message bus: %w", ErrNoDevice, err)
	}
	r.conn = conn
	return conn, nil
}

// Name is what the reader is called, if there is one. Errors: ErrNoDevice.
func (r *Reader) Name(ctx context.Context) (string, error) {
	d, err := r.device(ctx)
	if err != nil {
		return "", err
	}
	return d.Name()
}

// Verify is Device.Verify with any finger of the user. Errors: ErrNoDevice too.
func (r *Reader) Verify(ctx context.Context, user string, tell func(status string)) (bool, error) {
	d, err := r.device(ctx)
	if err != nil {
		return false, err
	}
	return d.Verify(ctx, user, AnyFinger, tell)
}

// Enroll is Device.Enroll. Errors: ErrNoDevice too.
func (r *Reader) Enroll(ctx context.Context, user, finger string, tell func(status string)) error {
	d, err := r.device(ctx)
	if err != nil {
		return err
	}
	return d.Enroll(ctx, user, finger, tell)
}

// Delete is Device.Delete; a user without prints is no error. Errors: ErrNoDevice too.
func (r *Reader) Delete(ctx context.Context, user string) error {
	d, err := r.device(ctx)
	if err != nil {
		return err
	}
	if _, err := d.Fingers(ctx, user); errors.Is(err, ErrNotEnrolled) {
		return nil
	}
	return d.Delete(ctx, user)
}

// Close ends the connection, and with it what is going on: that is ErrGone then.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.conn == nil {
		return nil
	}
	err := r.conn.Close()
	r.conn = nil
	return err
}
