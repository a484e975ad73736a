package api

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// hurried are bounds of a server that is attacked in a test.
func hurried() bounds {
	b := defaultBounds()
	b.connections, b.header, b.read = 32, 300*time.Millisecond, 500*time.Millisecond
	return b
}

// heapBytes is what is in use after a collection.
func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// alive fails the test unless a client comes through and back over a connection of its own.
func alive(t *testing.T, what string, dial func() net.Conn) {
	t.Helper()
	conn := dial()
	fmt.Fprint(conn, "GET /v1/health/live HTTP/1.1\r\nHost: vigild\r\nConnection: close\r\n\r\n")
	if got := answered(t, conn); got != http.StatusOK {
		t.Errorf("%s: an honest client gets %d", what, got)
	}
	conn.Close()
}

// TestAThousandSilentConnections: they cost bounded memory and lock nobody out.
func TestAThousandSilentConnections(t *testing.T) {
	s := serveFake(t, defaultBounds(), nil)
	for name, dial := range s.dialers(t) {
		for _, kind := range []string{"silent", "idle", "half a header"} {
			t.Run(name+" "+kind, func(t *testing.T) {
				before := heapBytes()
				n := 1000
				if name == "TLS" {
					n = 300 // more than there is room for; a thousand handshakes take long with the race detector
				}
				var all []net.Conn
				for range n {
					conn := dial()
					all = append(all, conn)
					switch kind {
					case "idle":
						get(t, conn)
					case "half a header":
						fmt.Fprint(conn, "GET /v1/health/live HTTP/1.1\r\nHost: vig")
					}
				}
				alive(t, kind, dial)
				grown := int64(heapBytes()) - int64(before)
				if limit := int64(64 << 20); grown > limit {
					t.Errorf("%d bytes more on the heap", grown)
				}
				for _, c := range all {
					c.Close()
				}
			})
		}
	}
}

// TestAnIdleCrowdOfOneMakesRoomForAnother: of all idle connections those of the crowd go first.
func TestAnIdleCrowdOfOneMakesRoomForAnother(t *testing.T) {
	open := func(peer string, idle time.Duration) *conn {
		a, b := net.Pipe()
		t.Cleanup(func() { a.Close(); b.Close() })
		return &conn{Conn: a, peer: peer, idle: time.Now().Add(-idle)}
	}
	l := &conns{open: map[*conn]struct{}{}}
	quietOne := open("b", time.Hour)
	crowd := []*conn{open("a", time.Minute), open("a", 2*time.Minute), open("a", time.Second)}
	busy := open("a", 0)
	busy.idle = time.Time{}
	for _, c := range append(crowd, quietOne, busy) {
		l.open[c] = struct{}{}
	}
	for _, want := range []*conn{crowd[1], crowd[0], quietOne, crowd[2]} { // as long as a has more; then the oldest
		v, _ := l.victim()
		if v != want {
			t.Fatalf("%+v goes, want %+v", v, want)
		}
		delete(l.open, v)
	}
	if v, later := l.victim(); v != nil || later {
		t.Errorf("a busy connection goes: %+v", v)
	}
	l.open[open("c", 0)] = struct{}{}
	if v, later := l.victim(); v != nil || !later {
		t.Errorf("a connection that has just come goes: %+v", v)
	}
}

// TestMalformedRequests: nothing that could be read in two ways is served. What follows on the same connection must not be
// taken for a request.
func TestMalformedRequests(t *testing.T) {
	s := serveFake(t, hurried(), nil)
	const smuggled = "GET /v1/subjects HTTP/1.1\r\nHost: vigild\r\n\r\n"
	for name, dial := range s.dialers(t) {
		for _, text := range []string{
			"GET / HTTP/1.1\r\n\r\n", // no host
			"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
			"GET  / HTTP/1.1\r\nHost: vigild\r\n\r\n",
			"GET / HTTP/9.9\r\nHost: vigild\r\n\r\n",
			"\x00\x01\x02\x03\r\n\r\n",
			"GET /v1/status HTTP/1.1\r\nHost: vigild\r\nX : y\r\n\r\n",
			"GET /v1/status HTTP/1.1\r\nHost: vigild\r\nX\x00: y\r\n\r\n",
			"GET /v1/status HTTP/1.1\r\nHost: vigild\r\n folded: y\r\n\r\n",
			"POST /v1/identify HTTP/1.1\r\nHost: vigild\r\nContent-Length: 4\r\nContent-Length: 50\r\n\r\n" + smuggled,
			"POST /v1/identify HTTP/1.1\r\nHost: vigild\r\nContent-Length: -1\r\n\r\n" + smuggled,
			"POST /v1/identify HTTP/1.1\r\nHost: vigild\r\nContent-Length: 1e1\r\n\r\n" + smuggled,
			"POST /v1/identify HTTP/1.1\r\nHost: vigild\r\nContent-Length: 99999999999999999999\r\n\r\n" + smuggled,
			"POST /v1/identify HTTP/1.1\r\nHost: vigild\r\nTransfer-Encoding: gzip\r\n\r\n" + smuggled,
			"POST /v1/identify HTTP/1.1\r\nHost: vigild\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + smuggled,
			"POST /v1/identify HTTP/1.1\r\nHost: vigild\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + smuggled,
			"POST /v1/identify HTTP/1.1\r\nHost: vigild\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + smuggled,
			"POST /v1/identify HTTP/1.1\r\nHost: vigild\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n" + smuggled,
			"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense that is no frame of HTTP/2" + strings.Repeat("\xff", 100),
		} {
			conn := dial()
			io.WriteString(conn, text)
			answers, _ := io.ReadAll(conn) // the server closes
			if good := bytes.Count(answers, []byte("HTTP/1.1 200")); good > 0 {
				t.Errorf("%s: %q is answered %q", name, text, answers)
			}
		}
		alive(t, "after nonsense over "+name, dial)
	}
}

// TestBothLengths: with Transfer-Encoding and Content-Length the former counts, and the connection ends (RFC 9112, 6.1).
func TestBothLengths(t *testing.T) {
	s := serveFake(t, hurried(), nil)
	for name, dial := range s.dialers(t) {
		conn := dial()
		io.WriteString(conn, "POST /v1/identify HTTP/1.1\r\nHost: vigild\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+
			"GET /v1/health/live HTTP/1.1\r\nHost: vigild\r\n\r\n")
		answers, _ := io.ReadAll(conn)
		if bytes.Contains(answers, []byte("HTTP/1.1 200")) {
			t.Errorf("%s: what stands behind is served: %q", name, answers)
		}
	}
}

// TestEndlessHeadersAndBodies sends without end; the server must stop reading.
func TestEndlessHeadersAndBodies(t *testing.T) {
	s := serveFake(t, hurried(), nil)
	s.server.handler.bodyBytes = 1 << 20
	before := heapBytes()
	for name, dial := range s.dialers(t) {
		for what, begin := range map[string]string{
			"header":       "GET / HTTP/1.1\r\nHost: vigild\r\nX: ",
			"headers":      "GET / HTTP/1.1\r\nHost: vigild\r\n",
			"request line": "GET /",
			"body":         "POST /v1/identify HTTP/1.1\r\nHost: vigild\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n",
			"JSON":         "POST /v1/identify HTTP/1.1\r\nHost: vigild\r\nTransfer-Encoding: chunked\r\n\r\n",
			"large length": "POST /v1/identify HTTP/1.1\r\nHost: vigild\r\nContent-Type: image/png\r\nContent-Length: 9000000000\r\n\r\n",
			"of no use":    "POST /v1/check HTTP/1.1\r\nHost: vigild\r\nTransfer-Encoding: chunked\r\n\r\n",
		} {
			piece := strings.Repeat("x", 1<<12)
			switch what {
			case "headers":
				piece = strings.Repeat("X: y\r\n", 1<<10)
			case "body", "JSON", "of no use":
				piece = fmt.Sprintf("%x\r\n%s\r\n", len(piece), strings.Repeat("[", len(piece)))
			}
			conn := dial()
			if _, err := io.WriteString(conn, begin); err != nil {
				t.Fatal(err)
			}
			sent := 0
			for sent < 64<<20 {
				n, err := io.WriteString(conn, piece)
				sent += n
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatalf("%s over %s: the server neither reads nor ends", what, name)
				}
				if err != nil {
					break
				}
			}
			if sent >= 64<<20 {
				t.Errorf("%s over %s: the server took %d bytes", what, name, sent)
			}
			conn.Close()
		}
		alive(t, "after endless ones over "+name, dial)
	}
	if grown := int64(heapBytes()) - int64(before); grown > 64<<20 {
		t.Errorf("%d bytes more on the heap", grown)
	}
}

// TestASlowReaderOfALongAnswer asks for long answers, one behind the other, and reads none: it must be cut off, and not hold a
// place for ever.
func TestASlowReaderOfALongAnswer(t *testing.T) {
	const piece = 1 << 20
	cut := make(chan error, 1)
	b := hurried()
	socket, _ := startServer(t, b, func(w http.ResponseWriter, _ *http.Request) {
		h := &handler{log: quiet()}
		out := &tarAnswer{w: w, h: h, timeout: 50 * time.Millisecond}
		var err error
		for err == nil {
			_, err = out.Write(make([]byte, piece))
		}
		cut <- err
	})
	conn := connect(t, socket)
	get(t, conn)
	select {
	case err := <-cut:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("cut off by %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("a reader that reads nothing is waited for")
	}
}

// TestHalfClosedConnections: one that has said all is answered; one that said half is ended.
func TestHalfClosedConnections(t *testing.T) {
	s := serveFake(t, hurried(), nil)
	closeWrite := func(c net.Conn) {
		if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	for name, dial := range s.dialers(t) {
		whole := dial()
		fmt.Fprint(whole, "POST /v1/identify HTTP/1.1\r\nHost: vigild\r\nContent-Length: 2\r\n\r\n{}")
		closeWrite(whole)
		if got := answered(t, whole); got != http.StatusUnsupportedMediaType {
			t.Errorf("%s: answer %d", name, got)
		}
		half := dial()
		fmt.Fprint(half, "POST /v1/identify HTTP/1.1\r\nHost: vigild\r\nContent-Length: 20\r\n\r\n{}")
		closeWrite(half)
		resp, err := http.ReadResponse(bufio.NewReader(half), nil)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode < 400 {
				t.Errorf("%s: half a body is answered %s", name, resp.Status)
			}
		}
		alive(t, "after half-closed ones over "+name, dial)
	}
}

// TestRequestsInProgressAreBounded refuses what is more, at once.
func TestRequestsInProgressAreBounded(t *testing.T) {
	b := testBounds()
	b.requests = 2
	inside, finish := make(chan struct{}), make(chan struct{})
	socket, _ := startServer(t, b, func(http.ResponseWriter, *http.Request) { inside <- struct{}{}; <-finish })
	for range b.requests {
		get(t, connect(t, socket))
		<-inside
	}
	conn := connect(t, socket)
	get(t, conn)
	if got := answered(t, conn); got != http.StatusServiceUnavailable {
		t.Errorf("answer %d", got)
	}
	close(finish)
}
