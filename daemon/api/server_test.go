package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"vigil/daemon/api/openapi"
	"vigil/daemon/config"
)

// quiet is a log that nobody reads.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// testBounds are short enough for tests.
func testBounds() bounds {
	return bounds{connections: 64, requests: 64, header: 200 * time.Millisecond, read: time.Minute, idle: time.Minute, grace: time.Minute}
}

// startServer serves a handler on a socket until the test ends. Afterwards no goroutine of it may be left.
func startServer(t *testing.T, b bounds, h http.HandlerFunc) (socket string, s *Server) {
	t.Helper()
	before := runtime.NumGoroutine()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := listen(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	s = newServer(t.Context(), h, &access{others: config.ScopeOperator}, quiet(), b)
	s.serve(l, nil, newCounters(prometheus.NewRegistry()), quiet(), b)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		settled(t, "goroutines", before, runtime.NumGoroutine)
	})
	return socket, s
}

// settled waits until a count is down to a limit.
func settled(t *testing.T, what string, limit int, count func() int) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); count() > limit; <-tick.C {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d %s, want %d\n%s", count(), what, limit, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

func connect(t testing.TB, socket string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// get sends a whole request.
func get(t testing.TB, conn net.Conn) {
	t.Helper()
	if _, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: vigild\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
}

// answered reads the status of one answer.
func answered(t testing.TB, conn net.Conn) int {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func TestASlowHeaderIsCutOff(t *testing.T) {
	socket, _ := startServer(t, testBounds(), func(http.ResponseWriter, *http.Request) { t.Error("served") })
	conn := connect(t, socket)
	if _, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: vig"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); err != nil {
		t.Errorf("not cut off: %q, %v", answer, err)
	}
}

func TestALongHeaderIsRefused(t *testing.T) {
	socket, _ := startServer(t, testBounds(), func(http.ResponseWriter, *http.Request) { t.Error("served") })
	conn := connect(t, socket)
	go fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: vigild\r\nX: %s\r\n\r\n", strings.Repeat("x", 4*maxHeaderBytes))
	if got := answered(t, conn); got != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("answer %d", got)
	}
}

func TestASilentUploadIsCutOff(t *testing.T) {
	b := testBounds()
	b.read = 200 * time.Millisecond
	cut := make(chan error, 1)
	socket, _ := startServer(t, b, func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		cut <- err
	})
	conn := connect(t, socket)
	fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: vigild\r\nContent-Length: 100\r\n\r\nbegin")
	if err := <-cut; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("upload ended with %v", err)
	}
}

// TestLongWorkIsNotCutOff has a request that takes longer than an upload may: its context must live on.
func TestLongWorkIsNotCutOff(t *testing.T) {
	b := testBounds()
	b.read = 100 * time.Millisecond
	h := &handler{log: quiet(), mux: http.NewServeMux(), bodyBytes: maxBodyBytes, memory: &budget{free: memoryBytes}}
	h.mount(&route{Operation: openapi.Operation{Method: "POST", Path: "/", Scope: config.ScopeNone}, serve: func(_ *handler, r request) (any, error) {
		var q MatchRequest
		if err := body(r, &q); err != nil {
			return nil, err
		}
		select {
		case <-r.Context().Done():
			return nil, r.Context().Err()
		case <-time.After(4 * b.read):
			return q, nil
		}
	}})
	socket, _ := startServer(t, b, h.mux.ServeHTTP)
	conn := connect(t, socket)
	fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: vigild\r\nContent-Length: 2\r\n\r\n{}")
	if got := answered(t, conn); got != http.StatusOK {
		t.Errorf("answer %d", got)
	}
}

func TestMoreClientsThanConnectionsWait(t *testing.T) {
	const clients = 3
	b := testBounds()
	b.connections = 4
	var inside, most atomic.Int32
	var once sync.Once
	full := make(chan struct{})
	socket, _ := startServer(t, b, func(w http.ResponseWriter, _ *http.Request) {
		n := inside.Add(1)
		defer inside.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		if int(n) == b.connections { // all slots are taken, and the rest waits
			once.Do(func() { close(full) })
		}
		<-full
		w.Header().Set("Connection", "close")
	})
	var wg sync.WaitGroup
	for range clients * b.connections {
		conn := connect(t, socket)
		get(t, conn)
		wg.Go(func() {
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("a waiting client was not served: %v", err)
				return
			}
			resp.Body.Close()
		})
	}
	wg.Wait()
	if got := int(most.Load()); got != b.connections {
		t.Errorf("%d at a time, want %d", got, b.connections)
	}
}

func TestAnIdleClientMakesRoom(t *testing.T) {
	b := testBounds()
	b.connections = 1
	socket, _ := startServer(t, b, func(http.ResponseWriter, *http.Request) {})
	first := connect(t, socket)
	get(t, first)
	if got := answered(t, first); got != http.StatusOK {
		t.Fatalf("answer %d", got)
	}
	second := connect(t, socket)
	get(t, second)
	if got := answered(t, second); got != http.StatusOK {
		t.Errorf("answer %d", got)
	}
}

// TestAHalfClosedConnectionIsAnswered sends everything and closes its side.
func TestAHalfClosedConnectionIsAnswered(t *testing.T) {
	socket, _ := startServer(t, testBounds(), func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil || string(data) != "all" {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	conn := connect(t, socket)
	fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: vigild\r\nContent-Length: 3\r\n\r\nall")
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := answered(t, conn); got != http.StatusOK {
		t.Errorf("answer %d", got)
	}
}

func TestAClientThatLeavesCancelsItsRequest(t *testing.T) {
	inside, left := make(chan struct{}), make(chan struct{})
	socket, _ := startServer(t, testBounds(), func(_ http.ResponseWriter, r *http.Request) {
		close(inside)
		<-r.Context().Done()
		close(left)
	})
	conn := connect(t, socket)
	get(t, conn)
	<-inside
	conn.Close()
	select {
	case <-left:
	case <-time.After(20 * time.Second):
		t.Error("the request goes on")
	}
}

func TestCloseWaitsForRequests(t *testing.T) {
	inside, finish := make(chan struct{}), make(chan struct{})
	var done atomic.Bool
	socket, s := startServer(t, testBounds(), func(http.ResponseWriter, *http.Request) {
		close(inside)
		<-finish
		done.Store(true)
	})
	conn := connect(t, socket)
	get(t, conn)
	<-inside
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	for { // the socket goes first
		if _, err := os.Lstat(socket); errors.Is(err, os.ErrNotExist) {
			break
		}
		runtime.Gosched()
	}
	if c := Dial(socket); c != nil {
		if _, err := c.Status(t.Context()); !errors.Is(err, ErrNoDaemon) {
			t.Errorf("a closing server answers: %v", err)
		}
	}
	close(finish)
	if err := <-closed; err != nil || !done.Load() {
		t.Errorf("close: %v, request done: %v", err, done.Load())
	}
	if got := answered(t, conn); got != http.StatusOK {
		t.Errorf("the request in progress was answered with %d", got)
	}
}

func TestCloseCancelsWhatTakesTooLong(t *testing.T) {
	b := testBounds()
	b.grace = 50 * time.Millisecond
	inside := make(chan struct{})
	var done atomic.Bool
	socket, s := startServer(t, b, func(_ http.ResponseWriter, r *http.Request) {
		close(inside)
		<-r.Context().Done()
		time.Sleep(50 * time.Millisecond) // the appliance is still in use
		done.Store(true)
	})
	get(t, connect(t, socket))
	<-inside
	if err := s.Close(); err != nil || !done.Load() {
		t.Errorf("close: %v, request done: %v", err, done.Load())
	}
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	used := filepath.Join(dir, "used")
	if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: used, Net: "unix"}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, want string }{
		{filepath.Join(dir, "new"), ""},
		{stale, ""},
		{used, "another vigild answers there"},
		{file, "it is a file, not a socket"},
		{link, "it is a file, not a socket"},
		{dir, "it is a file, not a socket"},
		{filepath.Join(dir, "no", "folder"), "does the folder exist"},
	} {
		l, err := listen(t.Context(), c.path)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.path, err, c.want)
		}
		if err != nil {
			continue
		}
		if info, err := os.Lstat(c.path); err != nil || info.Mode() != os.ModeSocket|0o660 {
			t.Errorf("%s: %v, %v", c.path, info.Mode(), err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if data, err := os.ReadFile(file); string(data) != "precious" {
		t.Errorf("the file holds %q, %v", data, err)
	}
}

func TestErrorsOfTheWay(t *testing.T) {
	dir := t.TempDir()
	if _, err := Dial(filepath.Join(dir, "none")).Status(t.Context()); !errors.Is(err, ErrNoDaemon) || !strings.Contains(err.Error(), dir) {
		t.Errorf("no socket: %v", err)
	}
	socket, _ := startServer(t, testBounds(), func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/status":
			panic(http.ErrAbortHandler)
		case "/v1/models":
			<-r.Context().Done()
		default:
			http.Error(w, "not ours", http.StatusBadGateway)
		}
	})
	c := Dial(socket)
	defer c.Close()
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "ended before it answered") {
		t.Errorf("connection cut: %v", err)
	}
	var p *Problem
	if _, err := c.Check(t.Context()); !errors.As(err, &p) || p.Status != http.StatusBadGateway || p.Detail == "" {
		t.Errorf("an answer that is no problem: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Models(ctx); err != context.DeadlineExceeded {
		t.Errorf("out of time: %v", err)
	}
}
