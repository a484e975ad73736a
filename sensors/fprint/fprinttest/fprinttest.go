// Package fprinttest starts the real fprintd with libfprint's virtual device on a private message bus. It is imported from
// tests only.
//
// Promises: whatever it started has ended behind Close, and its folder is gone. One part is played, and says so: polkit, whom
// fprintd asks at every call, allows everything or nothing. What is not installed is ErrMissing, with the names of Debian's
// packages. Start blocks until fprintd shows its device, at most 15 seconds.
package fprinttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/godbus/dbus/v5"
)

// ErrMissing means that something is not installed, or does not run here.
var ErrMissing = errors.New("no fprintd with a virtual device here: apt-get install fprintd dbus")

// Bus is a private system bus with fprintd on it.
type Bus struct {
	Socket string // of the bus

	dir    string
	polkit *policeman
	bus    *process
	daemon *process
	serve  *dbus.Conn
}

// policeman is the played polkit.
type policeman struct{ deny atomic.Bool }

type polkitSubject struct {
	Kind    string
	Details map[string]dbus.Variant
}

type polkitResult struct {
	Authorized, Challenge bool
	Details               map[string]string
}

// CheckAuthorization is that of org.freedesktop.PolicyKit1.Authority.
func (p *policeman) CheckAuthorization(polkitSubject, string, map[string]string, uint32, string) (polkitResult, *dbus.Error) {
	return polkitResult{!p.deny.Load(), false, map[string]string{}}, nil
}

// process is a program that was started.
type process struct {
	cmd *exec.Cmd
	out bytes.Buffer
}

func launch(env []string, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.CommandContext(context.Background(), name, args...)}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = append(os.Environ(), env...), &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMissing, err)
	}
	return p, nil
}

func (p *process) stop() {
	if p == nil || p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()         // killed
}

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow receive_sender="*"/></policy></busconfig>`

// Start starts all of it.
func Start() (_ *Bus, err error) {
	daemon, err := exec.LookPath("dbus-daemon")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMissing, err)
	}
	b := &Bus{polkit: &policeman{}}
	if b.dir, err = os.MkdirTemp("", "fprint"); err != nil { // a short path: sockets lie in it
		return nil, err
	}
	defer func() {
		if err != nil {
			b.Close()
		}
	}()
	b.Socket = filepath.Join(b.dir, "bus")
	conf := filepath.Join(b.dir, "bus.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, busConfig, b.Socket), 0o600); err != nil {
		return nil, err
	}
	if b.bus, err = launch(nil, daemon, "--config-file="+conf, "--nofork", "--nopidfile"); err != nil {
		return nil, err
	}
	if b.serve, err = b.Dial(); err != nil {
		return nil, err
	}
	if err := b.serve.Export(b.polkit, "/org/freedesktop/PolicyKit1/Authority", "org.freedesktop.PolicyKit1.Authority"); err != nil {
		return nil, err
	}
	if _, err := b.serve.RequestName("org.freedesktop.PolicyKit1", 0); err != nil {
		return nil, err
	}
	return b, b.StartDaemon()
}

// Dial connects to the bus. The caller closes the connection.
func (b *Bus) Dial() (conn *dbus.Conn, err error) {
	for limit := time.Now().Add(10 * time.Second); time.Now().Before(limit); time.Sleep(5 * time.Millisecond) {
		if conn, err = dbus.Connect("unix:path=" + b.Socket); err == nil {
			return conn, nil
		}
	}
	return nil, fmt.Errorf("%w: no private bus: %w", ErrMissing, err)
}

// StartDaemon starts fprintd and waits for its device.
func (b *Bus) StartDaemon() (err error) {
	name := ""
	for _, n := range []string{"/usr/libexec/fprintd", "/usr/lib/fprintd/fprintd"} {
		if _, err := os.Stat(n); err == nil {
			name = n
		}
	}
	if name == "" {
		return ErrMissing
	}
	b.daemon, err = launch([]string{
		"DBUS_SYSTEM_BUS_ADDRESS=unix:path=" + b.Socket, "FP_VIRTUAL_DEVICE=" + b.finger(), "STATE_DIRECTORY=" + b.dir,
		"FP_DRIVERS_ALLOWLIST=virtual_device",
	}, name, "--no-timeout")
	if err != nil {
		return err
	}
	manager := b.serve.Object("net.reactivated.Fprint", "/net/reactivated/Fprint/Manager")
	for limit := time.Now().Add(15 * time.Second); time.Now().Before(limit); time.Sleep(10 * time.Millisecond) {
		var paths []dbus.ObjectPath
		if err = manager.Call("net.reactivated.Fprint.Manager.GetDevices", 0).Store(&paths); len(paths) > 0 {
			return nil
		}
	}
	return fmt.Errorf("%w: it shows none: %w: %s", ErrMissing, err, b.daemon.out.String())
}

// StopDaemon ends fprintd.
func (b *Bus) StopDaemon() { b.daemon.stop() }

// Deny makes polkit refuse everything, or allow it again.
func (b *Bus) Deny(deny bool) { b.polkit.deny.Store(deny) }

// finger is the socket of the virtual device.
func (b *Bus) finger() string { return filepath.Join(b.dir, "finger") }

// Say gives the virtual device a command, such as "SCAN ann" for a finger's name; each waits for the operation.
func (b *Bus) Say(command string) (err error) {
	var d net.Dialer
	for range 200 {
		var c net.Conn
		if c, err = d.DialContext(context.Background(), "unix", b.finger()); err == nil {
			_, err = c.Write([]byte(command))
			if err = errors.Join(err, c.Close()); err == nil {
				return nil
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// Close ends all of it.
func (b *Bus) Close() {
	if b.serve != nil {
		_ = b.serve.Close() // of a bus that ends
	}
	b.daemon.stop()
	b.bus.stop()
	_ = os.RemoveAll(b.dir) // a temporary folder
}
