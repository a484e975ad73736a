package fleettest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"vigil/fleet"
)

// ErrNoMosquitto is returned where the program is not installed.
var ErrNoMosquitto = errors.New("mosquitto is not installed; install the Debian package mosquitto")

const mosquittoStart = 10 * time.Second

// Mosquitto is the real broker, as a child process that serves one tenant: TLS 1.3 only, client certificates required,
// the certificate's CN as user name and client id, an ACL of pattern lines. Its CN based ACL cannot see the OU, so a
// broker of this kind serves one tenant, with a CA of that tenant.
type Mosquitto struct {
	pki  *PKI
	dir  string
	path string
	addr string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
	log  *lockedBuffer
}

// NewMosquitto writes a configuration into dir (an existing empty folder that the caller removes) and starts the broker
// on a free port of 127.0.0.1. It returns ErrNoMosquitto when there is none in PATH or /usr/sbin.
func NewMosquitto(p *PKI, tenant, dir string) (*Mosquitto, error) {
	path, err := findMosquitto()
	if err != nil {
		return nil, err
	}
	if err := fleet.ValidateName(tenant); err != nil {
		return nil, err
	}
	m := &Mosquitto{pki: p, dir: dir, path: path, log: &lockedBuffer{}}
	if m.addr, err = freePort(); err != nil {
		return nil, err
	}
	if err := m.configure(tenant); err != nil {
		return nil, err
	}
	return m, m.Restart()
}

func findMosquitto() (string, error) {
	for _, name := range []string{"mosquitto", "/usr/sbin/mosquitto"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrNoMosquitto
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("cannot find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (m *Mosquitto) configure(tenant string) error {
	server, err := m.pki.Server(nil)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(server.Key)
	if err != nil {
		return fmt.Errorf("cannot write the broker's key: %w", err)
	}
	_, port, err := net.SplitHostPort(m.addr)
	if err != nil {
		return fmt.Errorf("cannot use address %s: %w", m.addr, err)
	}
	for name, content := range map[string][]byte{
		"ca.pem":         m.pki.CAPEM(),
		"server.pem":     server.CertPEM,
		"server.key":     pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		"acl":            aclFile(tenant),
		"mosquitto.conf": m.confFile(port),
	} {
		if err := os.WriteFile(filepath.Join(m.dir, name), content, 0o600); err != nil {
			return fmt.Errorf("cannot configure the broker: %w", err)
		}
	}
	return nil
}

func aclFile(tenant string) []byte {
	return fmt.Appendf(nil, `user %[2]s
topic read vigil/1/%[1]s/+/up/#
topic write vigil/1/%[1]s/+/down/command

pattern write vigil/1/%[1]s/%%u/up/#
pattern read vigil/1/%[1]s/%%u/down/#
`, tenant, ManagementName)
}

func (m *Mosquitto) confFile(port string) []byte {
	conf := fmt.Appendf(nil, `listener %[2]s 127.0.0.1
cafile %[1]s/ca.pem
certfile %[1]s/server.pem
keyfile %[1]s/server.key
tls_version tlsv1.3
require_certificate true
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file %[1]s/acl
persistence true
persistence_location %[1]s/
autosave_on_changes true
autosave_interval 1
log_dest stderr
log_type error
log_type warning
log_type notice
`, m.dir, port)
	if os.Getuid() == 0 { // else it drops to a user who cannot read the folder
		conf = append(conf, "user root\n"...)
	}
	return conf
}

// Addr returns "127.0.0.1:port"; it stays the same over restarts.
func (m *Mosquitto) Addr() string { return m.addr }

// Log returns what the broker wrote so far.
func (m *Mosquitto) Log() string { return m.log.String() }

// Restart starts the broker (again) and waits until it takes TLS connections.
func (m *Mosquitto) Restart() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd != nil {
		return errors.New("cannot start mosquitto: it is running")
	}
	cmd := exec.Command(m.path, "-c", filepath.Join(m.dir, "mosquitto.conf"))
	cmd.Stdout, cmd.Stderr = m.log, m.log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start mosquitto: %w", err)
	}
	m.cmd, m.done = cmd, make(chan struct{})
	go func(done chan struct{}) {
		defer close(done)
		_ = cmd.Wait() // it is killed in the end, that is no failure
	}(m.done)
	if err := m.ready(); err != nil {
		_ = m.stop()
		return err
	}
	return nil
}

// ready polls with TLS handshakes until one succeeds, the process ended, or time is up.
func (m *Mosquitto) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), mosquittoStart)
	defer cancel()
	id, err := m.pki.Management("probe")
	if err != nil {
		return err
	}
	cfg, err := m.pki.ClientTLS(id)
	if err != nil {
		return err
	}
	dialer := tls.Dialer{Config: cfg}
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		if conn, err := dialer.DialContext(ctx, "tcp", m.addr); err == nil {
			return conn.Close()
		}
		select {
		case <-poll.C:
		case <-m.done:
			return fmt.Errorf("cannot start mosquitto: it ended: %s", m.Log())
		case <-ctx.Done():
			return fmt.Errorf("cannot start mosquitto: it does not answer: %s", m.Log())
		}
	}
}

// Kill ends the broker with SIGKILL and waits for it.
func (m *Mosquitto) Kill() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stop()
}

func (m *Mosquitto) stop() error {
	if m.cmd == nil {
		return nil
	}
	err := m.cmd.Process.Kill()
	<-m.done
	m.cmd = nil
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Close is Kill.
func (m *Mosquitto) Close() error { return m.Kill() }

// lockedBuffer collects the log of a running process.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String returns what was written.
func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
