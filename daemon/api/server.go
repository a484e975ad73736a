package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"vigil/daemon/core"
)

// bounds of the connections of a server.
type bounds struct {
	connections int           // served at a time; the rest wait in the kernel's queue
	header      time.Duration // for the header of a request
	read        time.Duration // for header and body
	idle        time.Duration // between requests: an idle connection keeps others from being served
	grace       time.Duration // for requests in progress when the server closes; then they are cancelled
}

func defaultBounds() bounds {
	return bounds{connections: 64, header: 5 * time.Second, read: time.Minute, idle: 10 * time.Second, grace: 10 * time.Second}
}

const maxHeaderBytes = 16 << 10

// Server serves a UNIX socket.
type Server struct {
	http     *http.Server
	requests gate
	cancel   context.CancelFunc // of all requests
	done     chan error
	close    func() error
}

// Serve listens on the socket and serves until Close. A socket left by a crash is removed; one that somebody answers is
// an error, and so is a file that is no socket.
func Serve(ctx context.Context, path string, a *core.Appliance, log *slog.Logger) (*Server, error) {
	l, err := listen(ctx, path)
	if err != nil {
		return nil, err
	}
	return serve(ctx, l, Handler(a, log), log, defaultBounds()), nil
}

func serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger, b bounds) *Server {
	s := &Server{done: make(chan error, 1)}
	s.close = sync.OnceValue(func() error { return s.shutDown(b.grace) })
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	s.http = &http.Server{
		Handler: s.requests.wrap(h), BaseContext: func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: b.header, ReadTimeout: b.read, IdleTimeout: b.idle, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(log.With("room", "api").Handler(), slog.LevelDebug),
	}
	go func() { s.done <- s.http.Serve(newLimited(l, b.connections)) }()
	return s
}

// listen makes the socket.
func listen(ctx context.Context, path string) (net.Listener, error) {
	if conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path); err == nil {
		return nil, errors.Join(fmt.Errorf("cannot serve %s: another vigild answers there: stop it first", path), conn.Close())
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("cannot serve the local interface: %w", err)
	case info.Mode().Type() != os.ModeSocket:
		return nil, fmt.Errorf("cannot serve %s: it is a file, not a socket: name another path with api.socket in the configuration", path)
	default:
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("cannot remove the socket of an earlier run: %w", err)
		}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot serve the local interface: %w: does the folder exist, and may this user write there?", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot protect the local interface: %w", err), l.Close())
	}
	return l, nil
}

// Close stops listening, removes the socket, lets requests in progress finish for a while, cancels the rest and waits
// for them. It may be called twice.
func (s *Server) Close() error { return s.close() }

func (s *Server) shutDown(grace time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	err := s.http.Shutdown(ctx)
	s.cancel()
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close()
	}
	s.requests.close()
	if e := <-s.done; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// gate counts the requests in progress. When it is closed, nobody is inside and nobody gets in.
type gate struct{ mu sync.RWMutex }

func (g *gate) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.mu.TryRLock() {
			_ = newProblem(errClosing, nil).write(w) // the client may be gone as well
			return
		}
		defer g.mu.RUnlock()
		h.ServeHTTP(w, r)
	})
}

// close waits for those inside and leaves the gate locked.
func (g *gate) close() { g.mu.Lock() }
