package securetest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Exchange is one TPM command and its response, as they were on the wire.
// Response is nil when there was none.
type Exchange struct {
	Command, Response []byte
}

// Mangle is what a proxy does to the traffic; nil functions leave it alone.
type Mangle struct {
	// Command returns what the TPM gets instead of cmd.
	Command func(cmd []byte) []byte
	// Response returns what the client gets instead of rsp, the answer to cmd;
	// nil hangs up.
	Response func(cmd, rsp []byte) []byte
}

// Proxy stands between a client and a TPM socket, records, and may lie.
type Proxy struct {
	listener net.Listener
	upstream string
	dir      string
	mangle   Mangle
	done     sync.WaitGroup

	mu     sync.Mutex
	seen   []Exchange
	conns  map[net.Conn]bool
	closed bool
}

// StartProxy listens on a socket of its own and forwards to the TPM at upstream
// ("unix:/path").
func StartProxy(upstream string, m Mangle) (*Proxy, error) {
	path, ok := strings.CutPrefix(upstream, "unix:")
	if !ok {
		return nil, fmt.Errorf("cannot stand in front of %q: not a socket", upstream)
	}
	dir, err := os.MkdirTemp("/tmp", "vigil-proxy-")
	if err != nil {
		return nil, fmt.Errorf("cannot start proxy: %w", err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "tpm.sock"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot start proxy: %w", err), os.RemoveAll(dir))
	}
	p := &Proxy{listener: l, upstream: path, dir: dir, mangle: m, conns: make(map[net.Conn]bool)}
	p.done.Add(1)
	go p.accept()
	return p, nil
}

// Addr is for tpm.Open.
func (p *Proxy) Addr() string { return "unix:" + p.listener.Addr().String() }

// Exchanges returns what went over the client's side so far: the commands as
// the client sent them, the responses as it got them.
func (p *Proxy) Exchanges() []Exchange {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Exchange(nil), p.seen...)
}

// Close hangs up and waits for the proxy's goroutines. A Mangle function that
// blocks must be let go first.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	err := p.listener.Close()
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.done.Wait()
	return errors.Join(err, os.RemoveAll(p.dir))
}

func (p *Proxy) accept() {
	defer p.done.Done()
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		if !p.track(client) {
			return
		}
		p.done.Add(1)
		go p.serve(client)
	}
}

// track registers a connection for Close, or closes it when that came first.
func (p *Proxy) track(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) untrack(c net.Conn) {
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
	c.Close()
}

func (p *Proxy) serve(client net.Conn) {
	defer p.done.Done()
	defer p.untrack(client)
	tpm, err := net.Dial("unix", p.upstream)
	if err != nil || !p.track(tpm) {
		return
	}
	defer p.untrack(tpm)
	for p.forward(client, tpm) == nil {
	}
}

// forward carries one command and its response.
func (p *Proxy) forward(client, tpm net.Conn) error {
	cmd, err := readFrame(client)
	if err != nil {
		return err
	}
	p.mu.Lock()
	at := len(p.seen)
	p.seen = append(p.seen, Exchange{Command: cmd})
	p.mu.Unlock()
	sent := cmd
	if p.mangle.Command != nil {
		sent = p.mangle.Command(append([]byte(nil), cmd...))
	}
	if _, err := tpm.Write(sent); err != nil {
		return err
	}
	rsp, err := readFrame(tpm)
	if err != nil {
		return err
	}
	if p.mangle.Response != nil {
		if rsp = p.mangle.Response(cmd, rsp); rsp == nil {
			return io.EOF
		}
	}
	p.mu.Lock()
	p.seen[at].Response = rsp
	p.mu.Unlock()
	_, err = client.Write(rsp)
	return err
}

// maxFrame bounds commands and responses.
const maxFrame = 1 << 16

// readFrame reads one command or response by the size in its header.
func readFrame(r io.Reader) ([]byte, error) {
	head := make([]byte, 10)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[2:])
	if size < 10 || size > maxFrame {
		return nil, fmt.Errorf("frame of %d bytes", size)
	}
	frame := append(head, make([]byte, size-10)...)
	_, err := io.ReadFull(r, frame[10:])
	return frame, err
}
