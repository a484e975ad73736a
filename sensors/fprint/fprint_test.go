package fprint_test

import (
	"context"
	"errors"
	"os/user"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"vigil/sensors/fprint"
	"vigil/sensors/fprint/fprinttest"
)

// bus is a private system bus with the real fprintd on it, whose reader is libfprint's virtual device; polkit alone is played.
type bus struct {
	*fprinttest.Bus
	conn *dbus.Conn
}

func start(t *testing.T) *bus {
	t.Helper()
	b, err := fprinttest.Start()
	if errors.Is(err, fprinttest.ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	conn, err := b.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &bus{b, conn}
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func device(t *testing.T, b *bus) *fprint.Device {
	t.Helper()
	d, err := fprint.Default(bounded(t), b.conn)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func me(t *testing.T) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}

// scanning starts an operation and gives it scans, one after the other.
func (b *bus) scanning(t *testing.T, scans ...string) {
	go func() {
		for _, s := range scans {
			time.Sleep(150 * time.Millisecond)
			if err := b.Say(s); err != nil {
				t.Error(err)
			}
		}
	}()
}

const finger = "right-index-finger"

func TestEnrolAndVerify(t *testing.T) {
	b := start(t)
	d, who, ctx := device(t, b), me(t), bounded(t)
	if name, err := d.Name(); err != nil || !strings.Contains(name, "irtual") {
		t.Errorf("the reader is called %q, %v", name, err)
	}
	if _, err := d.Fingers(ctx, who); !errors.Is(err, fprint.ErrNotEnrolled) {
		t.Errorf("before anything is enrolled: %v", err)
	}
	if _, err := d.Verify(ctx, who, fprint.AnyFinger, nil); !errors.Is(err, fprint.ErrNotEnrolled) {
		t.Errorf("verify before anything is enrolled: %v", err)
	}
	var stages []string
	b.scanning(t, "SCAN ann", "SCAN ann", "SCAN ann", "SCAN ann", "SCAN ann")
	if err := d.Enroll(ctx, who, finger, func(s string) { stages = append(stages, s) }); err != nil {
		t.Fatalf("enrol: %v, %v", err, stages)
	}
	if len(stages) == 0 {
		t.Error("no stage was told")
	}
	if list, err := d.Fingers(ctx, who); err != nil || len(list) != 1 || list[0] != finger {
		t.Errorf("enrolled: %v, %v", list, err)
	}
	for scan, want := range map[string]bool{"SCAN ann": true, "SCAN bob": false} {
		b.scanning(t, scan)
		if match, err := d.Verify(ctx, who, fprint.AnyFinger, nil); err != nil || match != want {
			t.Errorf("%s: match %v, %v", scan, match, err)
		}
	}
	var told []string
	b.scanning(t, "RETRY 1", "SCAN ann")
	if match, err := d.Verify(ctx, who, finger, func(s string) { told = append(told, s) }); err != nil || !match || len(told) == 0 {
		t.Errorf("with a scan to be repeated: match %v, %v, told %v", match, err, told)
	}
	soon, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := d.Verify(soon, who, finger, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody touches it: %v", err)
	}
	b.scanning(t, "SCAN ann")
	if match, err := d.Verify(ctx, who, finger, nil); err != nil || !match {
		t.Errorf("it is not free behind an ended context: %v, %v", match, err)
	}
	if err := d.Delete(ctx, who); err != nil {
		t.Error(err)
	}
	if _, err := d.Fingers(ctx, who); !errors.Is(err, fprint.ErrNotEnrolled) {
		t.Errorf("after it was deleted: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	b := start(t)
	d, who, ctx := device(t, b), me(t), bounded(t)
	b.Deny(true)
	if _, err := d.Verify(ctx, who, fprint.AnyFinger, nil); !errors.Is(err, fprint.ErrDenied) {
		t.Errorf("polkit says no: %v", err)
	}
	b.Deny(false)
	done := make(chan error, 1)
	go func() { done <- d.Enroll(ctx, who, finger, nil) }()
	time.Sleep(300 * time.Millisecond)
	if err := d.Enroll(ctx, who, finger, nil); !errors.Is(err, fprint.ErrInUse) {
		t.Errorf("a second operation: %v", err)
	}
	b.StopDaemon()
	if err := <-done; !errors.Is(err, fprint.ErrGone) {
		t.Errorf("fprintd ended: %v", err)
	}
}

// TestAReaderComesBack: fprintd ends and starts again, and prints of somebody who is no user of this machine are kept.
func TestAReaderComesBack(t *testing.T) {
	b, ctx := start(t), bounded(t)
	r := fprint.Open(b.Socket)
	const who = "vigil-0123456789abcdef0123456789abcdef"
	if name, err := r.Name(ctx); err != nil || !strings.Contains(name, "irtual") {
		t.Fatalf("the reader is called %q, %v", name, err)
	}
	b.scanning(t, "SCAN ann", "SCAN ann", "SCAN ann", "SCAN ann", "SCAN ann")
	if err := r.Enroll(ctx, who, finger, nil); err != nil {
		t.Fatal(err)
	}
	b.StopDaemon()
	if _, err := r.Name(ctx); !errors.Is(err, fprint.ErrNoDevice) {
		t.Errorf("without fprintd: %v", err)
	}
	if err := b.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	b.scanning(t, "SCAN ann")
	if match, err := r.Verify(ctx, who, nil); err != nil || !match {
		t.Errorf("behind a new start: match %v, %v", match, err)
	}
	if err := errors.Join(r.Delete(ctx, who), r.Delete(ctx, who)); err != nil {
		t.Errorf("deleting twice: %v", err)
	}
	if _, err := r.Verify(ctx, who, nil); !errors.Is(err, fprint.ErrNotEnrolled) {
		t.Errorf("after it was deleted: %v", err)
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Error(err)
	}
	if _, err := r.Name(ctx); err == nil {
		t.Error("a closed reader answers")
	}
	if _, err := fprint.Open("/nowhere/bus").Name(ctx); !errors.Is(err, fprint.ErrNoDevice) {
		t.Errorf("without a bus: %v", err)
	}
}
