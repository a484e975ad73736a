package fleet

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	packetConnack  = 2
	packetPublish  = 3
	packetPuback   = 4
	packetSuback   = 9
	packetPingresp = 13

	// maxPacketBytes bounds what the broker can make us allocate at once. It leaves room above MaxCommandBytes, so that a
	// command that is merely too large is refused and audited instead of ending the connection.
	maxPacketBytes = 256 << 10
)

var (
	// errOversize: a packet over maxPacketBytes. The broker would deliver it again in the next session for ever.
	errOversize = errors.New("packet from the broker is too large")
	errProtocol = errors.New("packet from the broker breaks the protocol")
)

// guardedConn stands between TLS and paho. It bounds every write in time, lets only the packets through that a broker may
// send to this client, and gives a connection that was cut on purpose an error of ours (paho takes net.ErrClosed for an
// orderly end and would not report it).
type guardedConn struct {
	net.Conn // TLS
	raw      net.Conn
	timeout  time.Duration
	frames   frameGuard // only the reader's goroutine

	writing sync.Mutex // one write and its deadline at a time; paho's keepalive writes beside its writer
	mu      sync.Mutex
	cause   error
}

// Read passes bytes on only after the guard has seen them.
func (g *guardedConn) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if bad := g.frames.scan(p[:n]); bad != nil {
		g.abort(bad)
		return 0, bad
	}
	return n, g.reason(err)
}

// Write fails after the write timeout; the TLS connection is broken then, and so is the link.
func (g *guardedConn) Write(p []byte) (int, error) {
	g.writing.Lock()
	defer g.writing.Unlock()
	if err := g.Conn.SetWriteDeadline(time.Now().Add(g.timeout)); err != nil {
		return 0, g.reason(err)
	}
	n, err := g.Conn.Write(p)
	if err == nil { // TLS answers key updates by itself; an old deadline would fail that
		err = g.Conn.SetWriteDeadline(time.Time{})
	}
	return n, g.reason(err)
}

// abort cuts the connection without a DISCONNECT, so that the broker publishes the will.
func (g *guardedConn) abort(cause error) {
	g.mu.Lock()
	if g.cause == nil {
		g.cause = cause
	}
	g.mu.Unlock()
	_ = g.raw.Close() // already failing; there is nobody to tell
}

// why returns the cause of abort, nil before.
func (g *guardedConn) why() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cause
}

// reason prefers the cause of abort to the error that it led to.
func (g *guardedConn) reason(err error) error {
	if cause := g.why(); err != nil && cause != nil {
		return cause
	}
	return err
}

// frameGuard follows the MQTT framing of a byte stream and refuses packets before they are read: types a broker does not
// send to this client, wrong lengths, and lengths over the bound. Fixed header: MQTT 3.1.1 section 2.2.
type frameGuard struct {
	kind, flags byte
	inLength    bool // between the first byte and the end of the length
	length      int
	shift       uint
	remain      int // of the body
}

func (f *frameGuard) scan(b []byte) error {
	for len(b) > 0 {
		if f.remain > 0 {
			n := min(f.remain, len(b))
			f.remain -= n
			b = b[n:]
			continue
		}
		if err := f.header(b[0]); err != nil {
			return err
		}
		b = b[1:]
	}
	return nil
}

func (f *frameGuard) header(c byte) error {
	if !f.inLength {
		f.kind, f.flags, f.inLength, f.length, f.shift = c>>4, c&0x0f, true, 0, 0
		return nil
	}
	f.length |= int(c&0x7f) << f.shift
	f.shift += 7
	if c&0x80 != 0 {
		if f.shift > 21 {
			return fmt.Errorf("%w: length of more than four bytes", errProtocol)
		}
		return nil
	}
	f.inLength = false
	f.remain = f.length
	return f.allowed()
}

func (f *frameGuard) allowed() error {
	want := -1
	switch f.kind {
	case packetPublish:
		if qos := f.flags >> 1 & 3; qos > 1 {
			return fmt.Errorf("%w: QoS %d", errProtocol, qos)
		}
		if f.length > maxPacketBytes {
			return fmt.Errorf("%w: %d bytes, at most %d", errOversize, f.length, maxPacketBytes)
		}
		return nil
	case packetConnack, packetPuback:
		want = 2
	case packetSuback: // one topic per SUBSCRIBE
		want = 3
	case packetPingresp:
		want = 0
	}
	if f.length != want {
		return fmt.Errorf("%w: type %d with %d bytes", errProtocol, f.kind, f.length)
	}
	return nil
}
