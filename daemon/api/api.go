// Package api is the local interface of the appliance: HTTP with JSON on a UNIX socket, and the client of it.
//
// Promises: what the command line can do, the socket can do, by the same code: without a daemon the client runs the same
// handler in its own process. A body is bounded, a slow or silent client is cut off, connections are bounded, and every
// error is application/problem+json (RFC 9457) with a stable "code". Who may open the socket file may use everything
// behind it; its mode is 0660.
//
// The server owns the socket file and its connections; it borrows the appliance. It answers no network address.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"vigil/daemon/core"
	"vigil/store"
)

// Bounds of the interface.
const (
	maxBodyBytes   = 96 << 20 // pictures in base64
	maxConnections = 64
	maxPage        = 1000
)

// EnrollRequest enrols a person, from pictures or at a sensor.
type EnrollRequest struct {
	Name     string   `json:"name"`
	Pictures [][]byte `json:"pictures,omitempty"` // JPEG or PNG
	Sensor   string   `json:"sensor,omitempty"`
}

// MatchRequest is a picture to verify or identify.
type MatchRequest struct {
	Subject string `json:"subject,omitempty"` // verify only
	Picture []byte `json:"picture"`
}

// SubjectList is one page of people.
type SubjectList struct {
	Subjects []store.Subject `json:"subjects"`
	Next     string          `json:"next,omitempty"` // pass as ?after= for the next page
}

// ImportRequest names a bundle on the device's disk.
type ImportRequest struct {
	Dir    string `json:"dir"`
	Preset string `json:"preset,omitempty"`
}

// Handler serves the appliance.
func Handler(a *core.Appliance) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) { reply(w, a.Status(), nil) })
	mux.HandleFunc("POST /v1/enroll", func(w http.ResponseWriter, r *http.Request) {
		var q EnrollRequest
		if !read(w, r, &q) {
			return
		}
		if q.Sensor != "" {
			e, err := a.EnrollAt(r.Context(), q.Name, q.Sensor)
			reply(w, e, err)
			return
		}
		e, err := a.Enroll(r.Context(), q.Name, q.Pictures)
		reply(w, e, err)
	})
	mux.HandleFunc("POST /v1/verify", func(w http.ResponseWriter, r *http.Request) {
		var q MatchRequest
		if read(w, r, &q) {
			d, err := a.Verify(r.Context(), q.Subject, q.Picture)
			reply(w, d, err)
		}
	})
	mux.HandleFunc("POST /v1/identify", func(w http.ResponseWriter, r *http.Request) {
		var q MatchRequest
		if read(w, r, &q) {
			list, err := a.Identify(r.Context(), q.Picture)
			reply(w, list, err)
		}
	})
	mux.HandleFunc("GET /v1/subjects", func(w http.ResponseWriter, r *http.Request) { subjects(a, w, r) })
	mux.HandleFunc("DELETE /v1/subjects/{id}", func(w http.ResponseWriter, r *http.Request) {
		reply(w, struct{}{}, a.DeleteSubject(r.Context(), r.PathValue("id")))
	})
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, r *http.Request) {
		list, err := a.Models()
		reply(w, list, err)
	})
	mux.HandleFunc("POST /v1/models", func(w http.ResponseWriter, r *http.Request) {
		var q ImportRequest
		if read(w, r, &q) {
			id, err := a.ImportModel(r.Context(), q.Dir, q.Preset)
			reply(w, map[string]string{"id": id}, err)
		}
	})
	mux.HandleFunc("DELETE /v1/models/{id}", func(w http.ResponseWriter, r *http.Request) {
		reply(w, struct{}{}, a.RemoveModel(r.Context(), r.PathValue("id")))
	})
	mux.HandleFunc("POST /v1/check", func(w http.ResponseWriter, r *http.Request) {
		report, err := a.Check()
		reply(w, report, err)
	})
	return mux
}

func subjects(a *core.Appliance, w http.ResponseWriter, r *http.Request) {
	limit := 100
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxPage {
			fail(w, http.StatusBadRequest, "bad_request", fmt.Errorf("limit %q: 1 to %d", text, maxPage))
			return
		}
		limit = n
	}
	list, err := a.Subjects(r.Context(), r.URL.Query().Get("after"), limit)
	page := SubjectList{Subjects: list}
	if len(list) == limit {
		page.Next = list[limit-1].ID
	}
	reply(w, page, err)
}

// read decodes the body strictly; it answers itself and returns false if that fails.
func read(w http.ResponseWriter, r *http.Request, v any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		status := http.StatusBadRequest
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			status = http.StatusRequestEntityTooLarge
		}
		fail(w, status, "bad_request", fmt.Errorf("body: %w", err))
		return false
	}
	return true
}

func reply(w http.ResponseWriter, v any, err error) {
	if err != nil {
		status, code := classify(err)
		fail(w, status, code, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		slog.Debug("client went away", "err", err)
	}
}

// Server serves a UNIX socket.
type Server struct {
	http     *http.Server
	listener net.Listener
	path     string
	done     chan error
}

// Serve listens on the socket and serves until Close. A socket left by a crash is removed; one that somebody answers is
// an error.
func Serve(ctx context.Context, path string, a *core.Appliance) (*Server, error) {
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		return nil, errors.Join(fmt.Errorf("cannot serve %s: another vigild answers there", path), conn.Close())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot remove a stale socket: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot serve the local interface: %w", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot protect the local interface: %w", err), l.Close())
	}
	s := &Server{
		http: &http.Server{
			Handler: Handler(a), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: time.Minute,
			WriteTimeout: 2 * time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		},
		listener: newLimited(l, maxConnections), path: path, done: make(chan error, 1),
	}
	go func() { s.done <- s.http.Serve(s.listener) }()
	return s, nil
}

// closeGrace is how long requests in progress may take to finish.
const closeGrace = 10 * time.Second

// Close stops listening, lets requests in progress finish for a while, and removes the socket.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	if e := <-s.done; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}
