package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Bounds on time. The longest command sent here is CreatePrimary of an ECC key,
// seconds on slow discrete TPMs.
const (
	defaultTimeout = 30 * time.Second
	probeTimeout   = 5 * time.Second
	retryPause     = 20 * time.Millisecond
	retryMax       = 8
)

// devicePath is the kernel's TPM resource manager.
const devicePath = "/dev/tpmrm0"

// TPM is an open connection to one TPM. Safe for concurrent use; operations
// wait for each other.
type TPM struct {
	mu      sync.Mutex // one operation at a time
	link    link
	timeout time.Duration
	addr    string
	info    Info
	srk     *srk  // set by CreateSRK and UseSRK
	broken  error // why the link is unusable; set once
}

// Info says what the TPM is.
type Info struct {
	Manufacturer string // four letters from the TCG vendor id registry, such as "IFX" or "IBM"
	Vendor       string // the vendor's own name for the part
	Firmware     string // version as four dotted numbers
	Transport    string // "device" or "socket"
	Address      string // as given to Open, or the device that was found
	IsSoftware   bool   // protects nothing against who can read the disk; every surface says so
}

// Option changes how Open works.
type Option func(*TPM)

// WithTimeout bounds the time of one TPM command (default 30 s).
func WithTimeout(d time.Duration) Option { return func(t *TPM) { t.timeout = d } }

// Open connects to the TPM at addr: a device such as "/dev/tpmrm0",
// "unix:/path/to.sock" for the data channel of swtpm (one client at a time), or
// "" for /dev/tpmrm0. It fails with ErrNoTPM when nothing is there. On a socket
// it flushes objects and sessions that a crashed process left in the TPM.
func Open(addr string, options ...Option) (*TPM, error) {
	if addr == "" {
		addr = devicePath
	}
	t := &TPM{timeout: defaultTimeout, addr: addr}
	for _, o := range options {
		o(t)
	}
	var err error
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		t.info.Transport = "socket"
		t.link, err = dialSocket(path, min(t.timeout, probeTimeout))
	} else {
		t.info.Transport = "device"
		t.link, err = openDevice(addr)
	}
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return nil, fmt.Errorf("cannot open TPM at %s: %w: add the user to the group tss", addr, err)
		}
		return nil, noTPM(addr, err)
	}
	if err := t.start(); err != nil {
		t.link.Close()
		return nil, err
	}
	return t, nil
}

// start identifies the TPM and cleans up after a crash.
func (t *TPM) start() error {
	full := t.timeout
	t.timeout = min(full, probeTimeout)
	defer func() { t.timeout = full }()
	err := t.do("identify the TPM", func(x transport.TPM) error { return t.identify(x) })
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: no answer; another process may hold %s", err, t.addr)
	}
	if err != nil || t.info.Transport != "socket" {
		return err
	}
	return t.do("clean up the TPM", flushStale)
}

// Info returns what Open found out.
func (t *TPM) Info() Info { return t.info }

// Close releases what this connection holds in the TPM, and the connection. It
// waits for an operation in progress, at most the time of one command. Closing
// twice is harmless.
func (t *TPM) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.link == nil {
		return nil
	}
	if t.broken == nil && t.srk != nil && t.srk.transient {
		_ = flush(sender{t}, t.srk.handle) // what stays is flushed by the next Open
	}
	err := t.link.Close()
	t.link, t.srk, t.broken = nil, nil, fmt.Errorf("%w: closed", ErrGone)
	return err
}

// Ping has the TPM answer a short command: proof that it is there.
func (t *TPM) Ping() error {
	return t.do("reach the TPM", func(x transport.TPM) error {
		_, err := tpm2.ReadClock{}.Execute(x)
		return err
	})
}

// do runs one operation, which may be several commands, alone.
func (t *TPM) do(what string, operation func(transport.TPM) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken != nil {
		return explain(what, t.broken)
	}
	err := operation(sender{t})
	if t.broken != nil {
		err = t.broken
	}
	return explain(what, err)
}

// sender is the transport that go-tpm sees; t.mu is held.
type sender struct{ t *TPM }

// Send implements transport.TPM. It sends again when the TPM asks for that.
func (s sender) Send(command []byte) ([]byte, error) {
	t := s.t
	if t.broken != nil {
		return nil, t.broken
	}
	if err := guard(command); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(t.timeout)
	for try := 0; ; try++ {
		response, err := t.link.exchange(command, time.Until(deadline))
		if err != nil {
			t.broken = fmt.Errorf("%w: %w", ErrGone, err)
			return nil, t.broken
		}
		if !wantsRetry(response) || try == retryMax || time.Until(deadline) < retryPause<<try {
			return response, nil
		}
		time.Sleep(retryPause << try)
	}
}

// wantsRetry says whether the TPM did not start the command and wants it again.
func wantsRetry(response []byte) bool {
	if len(response) < headerBytes {
		return false
	}
	switch tpm2.TPMRC(binary.BigEndian.Uint32(response[6:])) {
	case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate:
		return true
	}
	return false
}
