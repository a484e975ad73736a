package api

import (
	"cmp"
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// silence is how long a connection may say nothing, or not all of a header, before it counts as idle.
const silence = 50 * time.Millisecond

// conns is a listener that has no more than a number of connections open. When it is full and another client comes, the
// connection that has been idle for the longest is closed, of the peer that has the most idle ones: a crowd of silent
// connections locks nobody out. One whose next request has arrived already is not idle. If all are busy, the client waits
// until one is done or idle, and those behind it wait in the kernel's queue.
type conns struct {
	net.Listener
	max     int
	peer    func(net.Conn) string // who a connection belongs to
	evicted func()                // told of every idle connection that was closed

	mu     sync.Mutex
	room   *sync.Cond
	closed bool
	open   map[*conn]struct{}
}

// conn is a connection of conns.
type conn struct {
	net.Conn
	of   *conns
	peer string
	once sync.Once

	idle time.Time // since when; zero: busy. Guarded by of.mu
}

func newConns(l net.Listener, most int, peer func(net.Conn) string, evicted func()) *conns {
	c := &conns{Listener: l, max: most, peer: peer, evicted: evicted, open: map[*conn]struct{}{}}
	c.room = sync.NewCond(&c.mu)
	return c
}

// Accept implements net.Listener.
func (l *conns) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, of: l, idle: time.Now(), peer: l.peer(raw)}
	if !l.enter(c) {
		raw.Close()
		return nil, net.ErrClosed
	}
	return c, nil
}

// enter makes room for a connection. It reports false when the listener was closed meanwhile.
func (l *conns) enter(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed && len(l.open) >= l.max {
		v, later := l.victim()
		if v == nil {
			if later { // some are silent, but not for long enough
				time.AfterFunc(silence, l.room.Broadcast)
			}
			l.room.Wait()
			continue
		}
		delete(l.open, v)
		l.evicted()
		v.Conn.Close()
	}
	if l.closed {
		return false
	}
	l.open[c] = struct{}{}
	return true
}

// victim is the connection to close, nil if none is idle; later says that one may soon be. The caller holds the lock.
func (l *conns) victim() (v *conn, later bool) {
	var list []*conn
	idle := map[string]int{}
	for c := range l.open {
		if !c.idle.IsZero() {
			idle[c.peer]++
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b *conn) int { return cmp.Or(idle[b.peer]-idle[a.peer], a.idle.Compare(b.idle)) })
	now := time.Now()
	for _, c := range list {
		if now.Sub(c.idle) < silence {
			later = true
			continue
		}
		if !pending(c.Conn) {
			return c, false
		}
		later = true
	}
	return nil, later
}

// pending reports whether bytes have arrived that nobody has read.
func pending(c net.Conn) bool {
	s, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return err == nil && n > 0
}

// Close implements net.Listener. Connections stay.
func (l *conns) Close() error {
	l.mu.Lock()
	l.closed = true
	l.room.Broadcast()
	l.mu.Unlock()
	return l.Listener.Close()
}

// state follows what the server does with a connection; it is a hook of http.Server.
func (l *conns) state(nc net.Conn, s http.ConnState) {
	c, ok := wrapped(nc).(*conn)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch s {
	case http.StateActive:
		c.idle = time.Time{}
	case http.StateNew, http.StateIdle:
		c.idle = time.Now()
		l.room.Broadcast()
	}
}

// count is how many connections are open.
func (l *conns) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.of.mu.Lock()
		defer c.of.mu.Unlock()
		delete(c.of.open, c)
		c.of.room.Broadcast()
	})
	return err
}

// CloseWrite closes the sending side, as http.Server does before it gives a connection up.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// wrapped is the connection below TLS.
func wrapped(c net.Conn) net.Conn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}

// bare is the connection as the kernel gave it.
func bare(c net.Conn) net.Conn {
	c = wrapped(c)
	if own, ok := c.(*conn); ok {
		return own.Conn
	}
	return c
}
