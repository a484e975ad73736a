package fprint_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"vigil/sensors/fprint"
)

// policeman is a played polkit that allows everything, or nothing: fprintd asks it at every call. It is the only part here
// that is not the real one.
type policeman struct{ deny atomic.Bool }

type polkitSubject struct {
	Kind    string
	Details map[string]dbus.Variant
}

type polkitResult struct {
	Authorized, Challenge bool
	Details               map[string]string
}

func (p *policeman) CheckAuthorization(polkitSubject, string, map[string]string, uint32, string) (polkitResult, *dbus.Error) {
	return polkitResult{!p.deny.Load(), false, map[string]string{}}, nil
}

// bus is a private system bus with the real fprintd on it, whose reader is libfprint's virtual device.
type bus struct {
	conn   *dbus.Conn
	polkit *policeman
	finger string // socket of the virtual device
	stop   func() // ends fprintd
}

func binary(t *testing.T, names ...string) string {
	t.Helper()
	for _, n := range names {
		if p, err := exec.LookPath(n); err == nil {
			return p
		}
	}
	t.Skipf("%s is not installed: apt-get install fprintd dbus", filepath.Base(names[0]))
	return ""
}

// launch starts a program that ends with the test.
func launch(t *testing.T, env []string, name string, args ...string) (stop func()) {
	t.Helper()
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), env...), &out, &out
	if err := cmd.Start(); err != nil {
		t.Skipf("cannot start %s: %v", name, err)
	}
	ended := false
	stop = func() {
		if !ended {
			ended = true
			cmd.Process.Kill() //nolint:errcheck // it may have ended
			cmd.Wait()         //nolint:errcheck // killed
		}
	}
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("%s: %s", filepath.Base(name), out.String())
		}
	})
	return stop
}

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow receive_sender="*"/></policy></busconfig>`

func start(t *testing.T) *bus {
	t.Helper()
	daemon := binary(t, "dbus-daemon")
	fprintd := binary(t, "/usr/libexec/fprintd", "/usr/lib/fprintd/fprintd")
	dir, err := os.MkdirTemp("", "fprint") // a short path: sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket, conf := filepath.Join(dir, "bus"), filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, busConfig, socket), 0o600); err != nil {
		t.Fatal(err)
	}
	launch(t, nil, daemon, "--config-file="+conf, "--nofork", "--nopidfile")
	address := "unix:path=" + socket
	b := &bus{polkit: &policeman{}, finger: filepath.Join(dir, "finger")}
	b.conn = dial(t, address)
	serve := dial(t, address)
	if err := serve.Export(b.polkit, "/org/freedesktop/PolicyKit1/Authority", "org.freedesktop.PolicyKit1.Authority"); err != nil {
		t.Fatal(err)
	}
	if _, err := serve.RequestName("org.freedesktop.PolicyKit1", 0); err != nil {
		t.Fatal(err)
	}
	b.stop = launch(t, []string{
		"DBUS_SYSTEM_BUS_ADDRESS=" + address, "FP_VIRTUAL_DEVICE=" + b.finger, "STATE_DIRECTORY=" + dir, "FP_DRIVERS_ALLOWLIST=virtual_device",
	}, fprintd, "--no-timeout")
	for limit := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		list, err := fprint.Devices(t.Context(), b.conn)
		if len(list) > 0 {
			return b
		}
		if time.Now().After(limit) {
			t.Skipf("fprintd shows no virtual device here: %v", err)
		}
	}
}

func dial(t *testing.T, address string) *dbus.Conn {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := dbus.Connect(address)
		if err == nil {
			t.Cleanup(func() { conn.Close() })
			return conn
		}
		if time.Now().After(limit) {
			t.Skipf("no private bus here: %v", err)
		}
	}
}

// say gives the virtual device a command of its socket, such as SCAN and a finger's name; each waits for the operation.
func (b *bus) say(t *testing.T, command string) {
	t.Helper()
	var err error
	for range 200 {
		var c net.Conn
		if c, err = net.Dial("unix", b.finger); err == nil {
			_, err = c.Write([]byte(command))
			if err = errors.Join(err, c.Close()); err == nil {
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error(err)
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
			b.say(t, s)
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
	b.polkit.deny.Store(true)
	if _, err := d.Verify(ctx, who, fprint.AnyFinger, nil); !errors.Is(err, fprint.ErrDenied) {
		t.Errorf("polkit says no: %v", err)
	}
	b.polkit.deny.Store(false)
	done := make(chan error, 1)
	go func() { done <- d.Enroll(ctx, who, finger, nil) }()
	time.Sleep(300 * time.Millisecond)
	if err := d.Enroll(ctx, who, finger, nil); !errors.Is(err, fprint.ErrInUse) {
		t.Errorf("a second operation: %v", err)
	}
	b.stop()
	if err := <-done; !errors.Is(err, fprint.ErrGone) {
		t.Errorf("fprintd ended: %v", err)
	}
}
