package securetest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrNoSWTPM is returned by StartSWTPM when the program is not installed.
var ErrNoSWTPM = errors.New("swtpm not found: apt-get install swtpm")

const (
	startTimeout = 15 * time.Second
	stopTimeout  = 5 * time.Second
	// maxSocketPath is below the 108 bytes of sockaddr_un.
	maxSocketPath = 100
)

// Option changes how StartSWTPM works.
type Option func(*swtpm)

// WithLog has swtpm append every command and response, in hex, to the file:
// what ParseTranscript reads.
func WithLog(path string) Option { return func(s *swtpm) { s.log = path } }

// swtpm is one process.
type swtpm struct {
	log    string
	output bytes.Buffer // read only after exited is closed
	cmd    *exec.Cmd
	exited chan struct{}
	once   sync.Once
}

// StartSWTPM runs a software TPM with its state in dir (made if missing) and
// waits until it accepts connections. addr is for tpm.Open. The same dir gives
// the same TPM again. stop ends the process and waits for it; it may be called
// twice. Sockets lie in dir, or in a temporary folder when dir is too long.
func StartSWTPM(dir string, options ...Option) (addr string, stop func() error, err error) {
	s := &swtpm{exited: make(chan struct{})}
	for _, o := range options {
		o(s)
	}
	program, err := exec.LookPath("swtpm")
	if err != nil {
		return "", nil, ErrNoSWTPM
	}
	if strings.Contains(dir+s.log, ",") {
		return "", nil, fmt.Errorf("cannot start swtpm in %q: its options know no comma in a path", dir)
	}
	state := filepath.Join(dir, "state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		return "", nil, fmt.Errorf("cannot start swtpm: %w", err)
	}
	sockets, removeSockets, err := socketDir(dir)
	if err != nil {
		return "", nil, err
	}
	data := filepath.Join(sockets, "data.sock")
	s.cmd = exec.Command(program, s.args(state, data, filepath.Join(sockets, "ctrl.sock"))...)
	s.cmd.Stdout, s.cmd.Stderr = &s.output, &s.output
	if err := s.cmd.Start(); err != nil {
		return "", nil, errors.Join(fmt.Errorf("cannot start swtpm: %w", err), removeSockets())
	}
	go func() {
		s.cmd.Wait()
		close(s.exited)
	}()
	stop = func() error { return errors.Join(s.stop(), removeSockets()) }
	if err := s.waitReady(data); err != nil {
		return "", nil, errors.Join(err, stop())
	}
	return "unix:" + data, stop, nil
}

func (s *swtpm) args(state, data, ctrl string) []string {
	args := []string{"socket", "--tpm2",
		"--tpmstate", "dir=" + state,
		"--ctrl", "type=unixio,path=" + ctrl,
		"--server", "type=unixio,path=" + data,
		"--flags", "not-need-init,startup-clear"}
	if s.log != "" {
		args = append(args, "--log", "file="+s.log+",level=20")
	}
	return args
}

// socketDir returns a folder whose socket paths are short enough, without
// sockets of an earlier run.
func socketDir(dir string) (path string, remove func() error, err error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", nil, fmt.Errorf("cannot start swtpm: %w", err)
	}
	if len(filepath.Join(abs, "ctrl.sock")) < maxSocketPath {
		for _, name := range []string{"data.sock", "ctrl.sock"} {
			os.Remove(filepath.Join(abs, name))
		}
		return abs, func() error { return nil }, nil
	}
	path, err = os.MkdirTemp("/tmp", "vigil-swtpm-")
	if err != nil {
		return "", nil, fmt.Errorf("cannot start swtpm: %w", err)
	}
	return path, func() error { return os.RemoveAll(path) }, nil
}

// waitReady waits until the data socket accepts a connection.
func (s *swtpm) waitReady(data string) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(startTimeout)
	defer limit.Stop()
	for {
		if conn, err := net.Dial("unix", data); err == nil {
			return conn.Close()
		}
		select {
		case <-s.exited:
			return fmt.Errorf("cannot start swtpm: it ended (%v): %s", s.cmd.ProcessState, bytes.TrimSpace(s.output.Bytes()))
		case <-limit.C:
			return fmt.Errorf("cannot start swtpm: not ready after %v", startTimeout)
		case <-tick.C:
		}
	}
}

// stop asks, then kills.
func (s *swtpm) stop() error {
	var err error
	s.once.Do(func() {
		s.cmd.Process.Signal(syscall.SIGTERM)
		limit := time.NewTimer(stopTimeout)
		defer limit.Stop()
		select {
		case <-s.exited:
		case <-limit.C:
			s.cmd.Process.Kill()
			<-s.exited
			err = fmt.Errorf("swtpm did not stop in %v and was killed", stopTimeout)
		}
	})
	return err
}
