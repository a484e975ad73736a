package bus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of the way in.
const (
	maxHandshakes = 16 // at a time; who comes then is closed and counted
	handshakeTime = time.Second
	maxRequest    = 128 // bytes
	greeting      = "vigil-bus/1 "
)

// Access says who may look: processes of one of the users, or with one of the groups as their own (supplementary groups do not
// count). The user of this process
// and root are not let in unless they are named.
type Access struct {
	Users, Groups []uint32
}

// ServerStats counts who came.
type ServerStats struct {
	Given      uint64 `json:"given"`      // rings handed out
	Refused    uint64 `json:"refused"`    // peers that are not on the list
	Failed     uint64 `json:"failed"`     // garbage, silence, unknown sensors
	Overloaded uint64 `json:"overloaded"` // closed because too many came at once
}

// Server hands rings to processes of this machine.
type Server struct {
	l      *net.UnixListener
	access Access
	places chan struct{}
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	closed atomic.Bool

	mu    sync.Mutex
	rings map[string]*Ring

	given, refused, failed, overloaded atomic.Uint64
}

// Serve listens at a path and hands out what Add gives it, until Close. A socket that a crash left there is replaced, any
// other file is an error. The socket's mode lets everybody connect: who is let in is decided by the credentials that the
// kernel vouches for.
func Serve(path string, a Access) (*Server, error) {
	if len(a.Users)+len(a.Groups) == 0 {
		return nil, errors.New("the bus has no readers: name users or groups, or leave it off")
	}
	switch info, err := os.Lstat(path); {
	case err == nil && info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s is there and no socket: remove it, or name another path", path)
	case err == nil:
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("cannot remove the socket of an earlier run: %w", err)
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("cannot listen for readers of frames: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	s := &Server{l: l, access: a, places: make(chan struct{}, maxHandshakes), rings: map[string]*Ring{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.accept)
	return s, nil
}

// Add makes a ring available under its sensor's name. The ring stays its owner's.
func (s *Server) Add(r *Ring) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rings[r.sensor] = r
}

// Remove takes a ring back.
func (s *Server) Remove(sensor string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.rings, sensor)
}

// Stats returns the counts.
func (s *Server) Stats() ServerStats {
	return ServerStats{Given: s.given.Load(), Refused: s.refused.Load(), Failed: s.failed.Load(), Overloaded: s.overloaded.Load()}
}

// acceptPause is the rest after a failed accept, as when there are no descriptors left.
const acceptPause = 100 * time.Millisecond

func (s *Server) accept() {
	for {
		c, err := s.l.AcceptUnix()
		if err != nil {
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(acceptPause):
				continue
			}
		}
		if !s.access.admits(c) {
			s.refused.Add(1)
			c.Close()
			continue
		}
		select {
		case s.places <- struct{}{}:
			s.wg.Go(func() {
				defer func() { <-s.places }()
				s.handle(c)
			})
		default:
			s.overloaded.Add(1)
			c.Close()
		}
	}
}

// handle speaks with one reader.
func (s *Server) handle(c *net.UnixConn) {
	stop := context.AfterFunc(s.ctx, func() { c.Close() })
	defer stop()
	defer c.Close()
	if c.SetDeadline(time.Now().Add(handshakeTime)) != nil {
		return
	}
	line, err := bufio.NewReaderSize(io.LimitReader(c, maxRequest), maxRequest).ReadString('\n')
	name, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), greeting)
	if err != nil || !ok {
		s.failed.Add(1)
		fmt.Fprintf(c, "error say %q and a sensor's name in one line\n", greeting)
		return
	}
	if err := s.give(c, name); err != nil {
		s.failed.Add(1)
		fmt.Fprintf(c, "error %v\n", err)
		return
	}
	s.given.Add(1)
}

// give passes the descriptor of a ring.
func (s *Server) give(c *net.UnixConn, name string) error {
	s.mu.Lock()
	r := s.rings[name]
	s.mu.Unlock()
	if r == nil {
		return errors.New("no such sensor is shared")
	}
	fd, err := r.descriptor()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, _, err = c.WriteMsgUnix([]byte("ok\n"), unix.UnixRights(fd), nil)
	return err
}

// descriptor is a new descriptor of the shared memory, the caller's.
func (r *Ring) descriptor() (int, error) {
	r.handing.Lock()
	defer r.handing.Unlock()
	if r.shared == nil {
		return 0, os.ErrClosed
	}
	return unix.FcntlInt(r.shared.Fd(), unix.F_DUPFD_CLOEXEC, 0)
}

// admits reports whether the process at the other end is on the list.
func (a *Access) admits(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	admitted := false
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		admitted = err == nil && (slices.Contains(a.Users, cred.Uid) || slices.Contains(a.Groups, cred.Gid))
	})
	return err == nil && admitted
}

// Close stops listening, ends handshakes and removes the socket. Readers keep the rings that they have.
func (s *Server) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.cancel()
	err := s.l.Close()
	s.wg.Wait()
	return err
}
