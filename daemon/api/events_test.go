package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/infer/infertest/fake"
)

// streamed is an open stream of events.
type streamed struct {
	resp   *http.Response
	lines  *bufio.Scanner
	cancel context.CancelFunc
	lastID string
}

func (s *served) stream(t testing.TB, way, query, lastID string) *streamed {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url(way, "/v1/events"+query), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := s.http(t, way, "desk").Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s %s", resp.Status, resp.Header)
	}
	return &streamed{resp: resp, lines: bufio.NewScanner(resp.Body), cancel: cancel}
}

// next reads until the next event.
func (s *streamed) next(t testing.TB) core.Event {
	t.Helper()
	kind := ""
	for s.lines.Scan() {
		key, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch key {
		case "id":
			s.lastID = value
		case "event":
			kind = value
		case "data":
			var e core.Event
			if err := json.Unmarshal([]byte(value), &e); err != nil {
				t.Fatal(err)
			}
			if e.Type != kind || strconv.FormatUint(e.Seq, 10) != s.lastID {
				t.Errorf("id %s, event %s, data %+v", s.lastID, kind, e)
			}
			return e
		}
	}
	t.Fatalf("the stream ended: %v", s.lines.Err())
	return core.Event{}
}

func (s *served) token(t testing.TB, name string) core.Token {
	t.Helper()
	tok, _, err := s.app.CreateToken(core.WithCaller(t.Context(), "uid 7"), name, config.ScopeViewer, 0)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestEvents(t *testing.T) {
	s := serveFake(t, defaultBounds(), nil)
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			last := s.app.LastEvent()
			live := s.stream(t, way, "", "")
			tok := s.token(t, "a"+way[len(way)-1:])
			e := live.next(t)
			if e.Type != "token.create" || e.Seq != last+1 || e.Detail["token"] != tok.ID {
				t.Fatalf("%+v", e)
			}
			if _, told := e.Detail["by"]; told {
				t.Error("a viewer is told who asked")
			}
			live.cancel()
			if err := s.app.RevokeToken(t.Context(), tok.ID); err != nil { // while nobody listens
				t.Fatal(err)
			}
			again := s.stream(t, way, "?after=0", live.lastID) // the header goes before the query
			if e := again.next(t); e.Type != "token.revoke" || e.Seq != last+2 {
				t.Errorf("after %s: %+v", live.lastID, e)
			}
			again.cancel()
			if e := s.stream(t, way, "?after=0", "").next(t); e.Seq != 1 {
				t.Errorf("from the beginning: %+v", e)
			}
		})
	}
}

func TestTypesOfEvents(t *testing.T) {
	s := serveFake(t, defaultBounds(), nil)
	c := s.stream(t, "socket 1", "?types=decision,token.revoke", "")
	tok := s.token(t, "x")
	if _, err := s.app.Identify(t.Context(), fake.Picture(t, 1, true, true, 1)); err != nil {
		t.Fatal(err)
	}
	if err := s.app.RevokeToken(t.Context(), tok.ID); err != nil {
		t.Fatal(err)
	}
	if a, b := c.next(t), c.next(t); a.Type != "decision" || b.Type != "token.revoke" {
		t.Errorf("%+v, %+v", a, b)
	}
}

// TestManyEvents has more of them than a page.
func TestManyEvents(t *testing.T) {
	s := serveFake(t, defaultBounds(), nil)
	first := s.app.LastEvent()
	for i := range 3 * eventPage / 2 {
		tok := s.token(t, fmt.Sprint("n", i))
		if err := s.app.RevokeToken(t.Context(), tok.ID); err != nil {
			t.Fatal(err)
		}
	}
	c := s.stream(t, "TLS 2", "", strconv.FormatUint(first, 10))
	for want := first + 1; want <= s.app.LastEvent(); want++ {
		if e := c.next(t); e.Seq != want {
			t.Fatalf("event %d, want %d", e.Seq, want)
		}
	}
}

func TestHeartbeats(t *testing.T) {
	s := serveFake(t, defaultBounds(), nil)
	s.server.handler.heartbeat = 10 * time.Millisecond
	c := s.stream(t, "socket 1", "?types=nothing", "")
	s.token(t, "x")
	want := fmt.Sprint("id: ", s.app.LastEvent())
	for c.lines.Scan() {
		if c.lines.Text() == want { // the number goes along although the event does not
			return
		}
	}
	t.Errorf("no heartbeat: %v", c.lines.Err())
}

func TestStreamsAreBounded(t *testing.T) {
	s := serveFake(t, defaultBounds(), nil)
	s.server.handler.streams = make(chan struct{}, 1)
	c := s.stream(t, "socket 1", "", "")
	resp, body := s.fetch(t, "socket 2", "", http.MethodGet, "/v1/events", "", nil)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.Contains(string(body), `"overloaded"`) {
		t.Errorf("%s %s", resp.Status, body)
	}
	c.cancel()
	settled(t, "streams", 0, func() int { return len(s.server.handler.streams) })
}

// TestASlowReaderOfEventsIsCutOff has clients that read nothing while a long log is sent.
func TestASlowReaderOfEventsIsCutOff(t *testing.T) {
	s := serveFake(t, defaultBounds(), nil)
	s.server.handler.eventTimeout = 50 * time.Millisecond
	s.server.handler.heartbeat = time.Nanosecond // fills every buffer on the way
	for name, dial := range s.dialers(t) {
		conn := dial()
		fmt.Fprint(conn, "GET /v1/events?after=0 HTTP/1.1\r\nHost: vigild\r\n\r\n")
		settled(t, name+" is not let in", 0, func() int { return 1 - len(s.server.handler.streams) })
		settled(t, "streams over "+name, 0, func() int { return len(s.server.handler.streams) })
	}
}

func TestStreamsEndWithTheServer(t *testing.T) {
	s := serveFake(t, defaultBounds(), nil)
	var open []*streamed
	for _, way := range ways {
		open = append(open, s.stream(t, way, "", ""))
	}
	closed := make(chan error, 1)
	go func() { closed <- s.server.Close() }()
	for i, c := range open {
		if _, err := io.Copy(io.Discard, c.resp.Body); err != nil && !strings.Contains(err.Error(), "EOF") {
			t.Errorf("%s: %v", ways[i], err)
		}
	}
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(9 * time.Second): // shorter than the grace of requests
		t.Error("streams hold up the end")
	}
}
