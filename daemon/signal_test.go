package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"vigil/daemon/api"
	"vigil/daemon/daemontest"
)

// startDaemon runs the daemon of a device as a process, until the test ends, and waits until it answers.
func startDaemon(t *testing.T, d *daemontest.Device) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "run", "--config", writeConfig(t, d))
	cmd.Env = append(os.Environ(), testMainEnv+"=1")
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := api.Dial(socketPath(d.Config))
	defer c.Close()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(time.Minute); ; <-tick.C {
		_, err := c.Status(t.Context())
		if err == nil {
			return cmd
		}
		if time.Now().After(limit) {
			t.Fatal(err)
		}
	}
}

// TestTheSecondSignalEndsAtOnce has a client whose request never ends: the first signal waits for it, the second does not.
func TestTheSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	d := daemontest.New(t)
	cmd := startDaemon(t, d)
	socket := filepath.Join(d.Config.StateDir, "vigild.sock")
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /v1/identify HTTP/1.1\r\nHost: vigild\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n")
	if _, err := conn.Read(make([]byte, 1)); err != nil { // "100 Continue": the handler reads the body now
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(time.Minute); ; <-tick.C { // the socket goes first
		if _, err := os.Lstat(socket); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("the first signal did not close the socket")
		}
	}
	begin := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("ended with %v, want the signal", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("the second signal took %v", took)
	}
}
