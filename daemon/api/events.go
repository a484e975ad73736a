package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"vigil/daemon/core"
)

// Bounds of streams of events.
const (
	maxEventStreams = 32
	eventPage       = 64 // events that are read, and buffered, at a time
	eventHeartbeat  = 15 * time.Second
	eventTimeout    = 10 * time.Second // for a client to take what is written; then it is cut off
)

// events streams the audit log as server-sent events (WHATWG HTML, section 9.2): from now on, or behind the event whose
// number the client names. Nothing is queued for a client beyond one page: the log itself is the queue, so a slow client
// misses nothing, and one that takes nothing at all is cut off and may come back with the number of its last event.
func (h *handler) events(w http.ResponseWriter, r request) {
	s, err := h.newStream(w, r)
	if err != nil {
		h.answer(w, http.StatusOK, nil, err)
		return
	}
	select {
	case h.streams <- struct{}{}:
		defer func() { <-h.streams }()
	default:
		h.answer(w, http.StatusOK, nil, fmt.Errorf("%w: %d streams of events are open", errOverloaded, cap(h.streams)))
		return
	}
	h.counters.streams.Inc()
	defer h.counters.streams.Dec()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	r.uploaded()
	err = s.run(r)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		h.counters.cutOff.Inc()
		h.log.Info("a slow reader of events was cut off", "client", clientOf(r.Context()).who, "last_event", s.after)
	case err != nil && r.Context().Err() == nil:
		h.log.Debug("stream of events ended", "err", err)
	}
}

// stream is one client of events.
type stream struct {
	h     *handler
	w     http.ResponseWriter
	rc    *http.ResponseController
	after uint64          // number of the last event that was sent or passed over
	types map[string]bool // nil: all
	buf   bytes.Buffer
}

// newStream reads where a stream begins and what it holds.
func (h *handler) newStream(w http.ResponseWriter, r request) (*stream, error) {
	s := &stream{h: h, w: w, rc: http.NewResponseController(w)}
	last := h.app.LastEvent()
	s.after = last
	const lastID = "Last-Event-ID"
	text, given, err := header(r.Request, lastID) // newer than the query, where a client comes back
	if err != nil {
		return nil, err
	}
	if !given {
		text, given = r.query.Get("after"), r.query.Has("after")
	}
	if given {
		if s.after, err = strconv.ParseUint(text, 10, 63); err != nil || s.after > last {
			return nil, fmt.Errorf("%w: after event %q: 0 to %d, the number of the last event", errBadRequest, text, last)
		}
	}
	if text := r.query.Get("types"); text != "" {
		s.types = map[string]bool{}
		for kind := range strings.SplitSeq(text, ",") {
			s.types[kind] = true
		}
	}
	return s, nil
}

// run sends events until the client leaves or the server stops. Errors: os.ErrDeadlineExceeded for a client that does not read.
func (s *stream) run(r request) error {
	stopping, _ := r.Context().Value(stoppingKey{}).(chan struct{})
	beat := time.NewTicker(s.h.heartbeat)
	defer beat.Stop()
	s.buf.WriteString(": vigil\n\n")
	for {
		news := s.h.app.News()
		more, err := s.fill(r)
		if err != nil {
			return err
		}
		if err := s.flush(); err != nil {
			return err
		}
		if more {
			continue
		}
		select {
		case <-news:
		case <-beat.C:
			// The number goes along, so that a client that wants few types does not come back for all others.
			fmt.Fprintf(&s.buf, "id: %d\n: alive\n\n", s.after)
		case <-stopping:
			return nil
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}
}

// fill writes one page into the buffer and reports whether there may be more.
func (s *stream) fill(r request) (more bool, err error) {
	list, err := s.h.app.Events(r.Context(), s.after, eventPage)
	if err != nil {
		return false, err
	}
	for i := range list {
		s.after = list[i].Seq
		if s.types == nil || s.types[list[i].Type] {
			if err := writeEvent(&s.buf, &list[i]); err != nil {
				return false, err
			}
		}
	}
	return len(list) == eventPage, nil
}

// writeEvent writes one event; JSON has no line breaks.
func writeEvent(b *bytes.Buffer, e *core.Event) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	fmt.Fprintf(b, "id: %d\nevent: %s\ndata: %s\n\n", e.Seq, e.Type, data)
	return nil
}

// flush sends what is in the buffer.
func (s *stream) flush() error {
	if s.buf.Len() == 0 {
		return nil
	}
	s.h.deadline(s.rc.SetWriteDeadline(time.Now().Add(s.h.eventTimeout)))
	defer s.buf.Reset()
	if _, err := s.w.Write(s.buf.Bytes()); err != nil {
		return err
	}
	if err := s.rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}
