package api

import (
	"context"
	"crypto/tls"
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
	connections int           // open at a time at one listener; see conns
	requests    int           // in progress at a time, over all listeners; more are refused
	header      time.Duration // for the header of a request
	read        time.Duration // for header and body
	idle        time.Duration // between requests
	grace       time.Duration // for requests in progress when the server closes; then they are cancelled
}

func defaultBounds() bounds {
	return bounds{connections: 256, requests: 512, header: 5 * time.Second, read: time.Minute, idle: time.Minute, grace: 10 * time.Second}
}

const maxHeaderBytes = 16 << 10

// Bounds of one HTTP/2 connection. Window sizes bound what a client may send before it is read.
const (
	maxStreams       = 32
	streamWindow     = 256 << 10
	connectionWindow = 1 << 20
)

// Server serves the UNIX socket and, where it is configured, the network.
type Server struct {
	servers  []*http.Server
	addr     net.Addr // of the network; nil without one
	handler  *handler
	requests *gate
	cancel   context.CancelFunc // of all requests
	done     chan error         // one value of each server
	close    func() error
}

// Serve listens on the socket, and on the network where the configuration says so, and serves until Close. A socket left by
// a crash is removed; one that somebody answers is an error, and so is a file that is no socket.
func Serve(ctx context.Context, path string, a *core.Appliance, log *slog.Logger) (*Server, error) {
	return serveAll(ctx, path, a, log, defaultBounds())
}

func serveAll(ctx context.Context, path string, a *core.Appliance, log *slog.Logger, b bounds) (_ *Server, err error) {
	cfg := a.APIConfig()
	who, err := newAccess(&cfg)
	if err != nil {
		return nil, err
	}
	h := newHandler(a, who, log, maxBodyBytes)
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	l, err := listen(ctx, path)
	if err != nil {
		return nil, err
	}
	var tcp net.Listener
	var t *tls.Config
	if cfg.TCP.Address != "" {
		if t, err = tlsConfig(&cfg.TCP, a.TLSSigner()); err == nil {
			tcp, err = (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.TCP.Address)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("cannot serve the network: %w", err), l.Close())
		}
	}
	s := newServer(ctx, h, who, log, b)
	s.handler = h
	s.serve(l, nil, h.counters, log, b)
	if tcp != nil {
		s.addr = tcp.Addr()
		log.Info("serving the network", "room", "api", "address", s.addr.String())
		s.serve(tcp, t, h.counters, log, b)
	}
	return s, nil
}

type stoppingKey struct{}

// newServer serves nothing yet.
func newServer(ctx context.Context, h http.Handler, who *access, log *slog.Logger, b bounds) *Server {
	s := &Server{done: make(chan error, 2), requests: newGate(b.requests)}
	s.close = sync.OnceValue(func() error { return s.shutDown(b.grace) })
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	stopping := make(chan struct{}) // long answers end by it, so that they do not hold up the end
	base = context.WithValue(base, stoppingKey{}, stopping)
	var once sync.Once
	handler := s.requests.wrap(h)
	for range 2 {
		srv := &http.Server{
			Handler: handler, BaseContext: func(net.Listener) context.Context { return base },
			ConnContext: func(ctx context.Context, c net.Conn) context.Context {
				if cl := who.ofConn(c); cl != nil {
					return withClient(ctx, cl)
				}
				return ctx
			},
			ReadHeaderTimeout: b.header, ReadTimeout: b.read, IdleTimeout: b.idle, MaxHeaderBytes: maxHeaderBytes,
			Protocols: new(http.Protocols),
			HTTP2: &http.HTTP2Config{
				MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerStream: streamWindow,
				MaxReceiveBufferPerConnection: connectionWindow, SendPingTimeout: b.idle, WriteByteTimeout: writeTimeout,
			},
			ErrorLog: slog.NewLogLogger(log.With("room", "api").Handler(), slog.LevelDebug),
		}
		srv.Protocols.SetHTTP1(true)
		srv.RegisterOnShutdown(func() { once.Do(func() { close(stopping) }) })
		s.servers = append(s.servers, srv)
	}
	s.servers[0].Protocols.SetUnencryptedHTTP2(true)
	s.servers[1].Protocols.SetHTTP2(true)
	return s
}

// serve begins to serve one listener: the socket, or the network where t is not nil.
func (s *Server) serve(l net.Listener, t *tls.Config, n *counters, log *slog.Logger, b bounds) {
	srv, name := s.servers[0], "socket"
	if t != nil {
		srv, name = s.servers[1], "network"
	}
	limit := newConns(l, b.connections, peerOf, func() {
		n.evicted.WithLabelValues(name).Inc()
		log.Debug("an idle connection made room", "listener", name)
	})
	n.connections(name, limit.count)
	srv.ConnState, srv.TLSConfig = limit.state, t
	go func() {
		if t != nil {
			s.done <- srv.ServeTLS(limit, "", "")
			return
		}
		s.done <- srv.Serve(limit)
	}()
}

// peerOf is who a connection belongs to, before anything was read: the user at a socket, the host in a network.
func peerOf(c net.Conn) string {
	if u, ok := c.(*net.UnixConn); ok {
		if cl := (&access{}).ofConn(u); cl != nil {
			return cl.key
		}
	}
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		return "unknown"
	}
	return host
}

// Addr is where the network is served, nil without one.
func (s *Server) Addr() net.Addr { return s.addr }

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
	var errs []error
	var late sync.WaitGroup
	for _, srv := range s.servers {
		late.Go(func() { _ = srv.Shutdown(ctx) }) // its only error is that of ctx; Close below ends what is left
	}
	late.Wait()
	s.cancel()
	for _, srv := range s.servers {
		errs = append(errs, srv.Close())
	}
	s.requests.close()
	for range s.serving() {
		if e := <-s.done; !errors.Is(e, http.ErrServerClosed) {
			errs = append(errs, e)
		}
	}
	if s.handler != nil {
		errs = append(errs, s.handler.Close())
	}
	return errors.Join(errs...)
}

// serving is how many listeners are served.
func (s *Server) serving() (n int) {
	for _, srv := range s.servers {
		if srv.ConnState != nil {
			n++
		}
	}
	return n
}

// gate counts the requests in progress and bounds them. When it is closed, nobody is inside and nobody gets in.
type gate struct {
	mu    sync.RWMutex
	slots chan struct{}
}

func newGate(most int) *gate { return &gate{slots: make(chan struct{}, most)} }

func (g *gate) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.mu.TryRLock() {
			_ = newProblem(errClosing, nil).write(w) // the client may be gone as well
			return
		}
		defer g.mu.RUnlock()
		select {
		case g.slots <- struct{}{}:
			defer func() { <-g.slots }()
		default:
			_ = newProblem(fmt.Errorf("%w: %d requests are in progress", errOverloaded, cap(g.slots)), nil).write(w)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// close waits for those inside and leaves the gate locked.
func (g *gate) close() { g.mu.Lock() }
