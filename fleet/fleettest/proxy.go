package fleettest

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// Proxy stands between one device and a broker and can misbehave: swallow PUBACKs, refuse connections, cut them hard.
// It terminates TLS on both sides, so it needs the device's identity; only a test can give it that.
type Proxy struct {
	listener net.Listener
	server   *tls.Config
	client   *tls.Config
	target   string

	swallow  atomic.Bool
	refuse   atomic.Bool
	swallows atomic.Int64
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	done  bool
}

// NewProxy listens on a free port of 127.0.0.1 and connects each connection to target as device.
func NewProxy(p *PKI, device Identity, target string) (*Proxy, error) {
	server, err := p.ServerTLS()
	if err != nil {
		return nil, err
	}
	client, err := p.ClientTLS(device)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("cannot start the proxy: %w", err)
	}
	x := &Proxy{listener: l, server: server, client: client, target: target, conns: map[net.Conn]struct{}{}}
	x.wg.Go(x.accept)
	return x, nil
}

// Addr returns "127.0.0.1:port".
func (x *Proxy) Addr() string { return x.listener.Addr().String() }

// SwallowPubacks drops, from now on or no longer, the PUBACKs of the broker. Everything else passes.
func (x *Proxy) SwallowPubacks(on bool) { x.swallow.Store(on) }

// Swallowed returns how many PUBACKs were dropped.
func (x *Proxy) Swallowed() int64 { return x.swallows.Load() }

// Refuse closes, from now on or no longer, new connections at once.
func (x *Proxy) Refuse(on bool) { x.refuse.Store(on) }

// Cut resets all connections without a farewell.
func (x *Proxy) Cut() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for c := range x.conns {
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // a reset; if that fails the close below still cuts
		}
		_ = c.Close()
	}
}

// Close stops the proxy and waits for its goroutines.
func (x *Proxy) Close() error {
	x.mu.Lock()
	x.done = true
	x.mu.Unlock()
	err := x.listener.Close()
	x.Cut()
	x.wg.Wait()
	return err
}

func (x *Proxy) accept() {
	for {
		raw, err := x.listener.Accept()
		if err != nil {
			return
		}
		if x.refuse.Load() || !x.hold(raw) {
			_ = raw.Close() // refused on purpose
			continue
		}
		x.wg.Go(func() { x.serve(raw) })
	}
}

func (x *Proxy) serve(raw net.Conn) {
	defer x.drop(raw)
	up, err := net.DialTimeout("tcp", x.target, 5*time.Second)
	if err != nil || !x.hold(up) {
		return
	}
	defer x.drop(up)
	device, broker := tls.Server(raw, x.server), tls.Client(up, x.client)
	x.wg.Go(func() {
		_, _ = io.Copy(broker, device) // ends with either connection
		x.drop(up)
	})
	x.down(device, broker)
}

// down passes the broker's packets on, except PUBACKs while they are to be swallowed.
func (x *Proxy) down(device io.Writer, broker io.Reader) {
	for {
		packet, err := packets.ReadPacket(broker)
		if err != nil {
			return
		}
		if _, puback := packet.(*packets.PubackPacket); puback && x.swallow.Load() {
			x.swallows.Add(1)
			continue
		}
		var out bytes.Buffer
		if packet.Write(&out) != nil {
			return
		}
		if _, err := device.Write(out.Bytes()); err != nil {
			return
		}
	}
}

func (x *Proxy) hold(c net.Conn) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.done {
		_ = c.Close() // too late to serve it
		return false
	}
	x.conns[c] = struct{}{}
	return true
}

func (x *Proxy) drop(c net.Conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.conns, c)
	_ = c.Close() // may be closed already
}
