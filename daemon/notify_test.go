package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vigil/daemon/daemontest"
)

// TestSystemdIsTold plays systemd's side of sd_notify: ready after the proof of work, fed while the device works, starved
// when the TPM is gone, and told of an orderly end.
func TestSystemdIsTold(t *testing.T) {
	t.Parallel()
	d := daemontest.NewWithModel(t)
	dir, err := os.MkdirTemp("", "vigil-notify") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "notify.sock")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "run", "--config", writeConfig(t, d))
	cmd.Env = append(os.Environ(), testMainEnv+"=1", "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=3000000")
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hear := func(limit time.Duration) string {
		t.Helper()
		if err := systemd.SetReadDeadline(time.Now().Add(limit)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 256)
		n, err := systemd.Read(b)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b[:n]))
	}
	if got := hear(time.Minute); got != "READY=1" {
		t.Fatalf("first message %q", got)
	}
	for range 2 {
		if got := hear(30 * time.Second); got != "WATCHDOG=1" {
			t.Fatalf("a working device says %q", got)
		}
	}
	if err := d.StopTPM(); err != nil {
		t.Fatal(err)
	}
	for hear(2500*time.Millisecond) == "WATCHDOG=1" { // what was proved before the TPM went may still be under way
	}
	if got := hear(4 * time.Second); got != "" {
		t.Errorf("a device without its TPM still says %q", got)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := hear(30 * time.Second); got != "STOPPING=1" {
		t.Errorf("the last message is %q", got)
	}
	if err := cmd.Wait(); err != nil {
		t.Logf("the daemon ends with %v", err)
	}
}
