// Package api is the local interface of the appliance: HTTP with JSON on a UNIX socket, and the client of it.
//
// Promises: what the command line can do, the socket can do, by the same code: without a daemon the client runs the same
// handler in its own process. A body is bounded, a slow or silent client is cut off, connections are bounded: more than
// 64 clients wait in the kernel's queue until one is done. Every error is application/problem+json (RFC 9457) with a
// stable "code". Who may open the socket file may use everything behind it; its mode is 0660.
//
// The server owns the socket file and its connections; it borrows the appliance, and no request uses it any more when
// Close has returned. It answers no network address.
package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"vigil/daemon/core"
)

// writeTimeout is how long a client may take to read an answer. The work before it has bounds of its own.
const writeTimeout = time.Minute

// handler serves an appliance.
type handler struct {
	app       *core.Appliance
	log       *slog.Logger
	mux       *http.ServeMux
	bodyBytes int64 // of a request, at most
}

// Handler serves the appliance; log hears of answers that nobody took.
func Handler(a *core.Appliance, log *slog.Logger) http.Handler {
	return newHandler(a, log, maxBodyBytes)
}

func newHandler(a *core.Appliance, log *slog.Logger, bodyBytes int64) http.Handler {
	h := &handler{app: a, log: log.With("room", "api"), mux: http.NewServeMux(), bodyBytes: bodyBytes}
	h.route("GET /v1/status", func(request) (any, error) { return a.Status(), nil })
	h.route("POST /v1/enroll", h.enroll)
	h.route("POST /v1/verify", h.verify)
	h.route("POST /v1/identify", h.identify)
	h.route("GET /v1/subjects", h.subjects)
	h.route("DELETE /v1/subjects/{id}", func(r request) (any, error) {
		return struct{}{}, a.DeleteSubject(r.Context(), r.PathValue("id"))
	})
	h.route("GET /v1/models", func(request) (any, error) { return a.Models() })
	h.route("POST /v1/models", h.importModel)
	h.route("GET /v1/models/{id}", func(r request) (any, error) { return a.Model(r.PathValue("id")) })
	h.route("POST /v1/models/{id}/verify", func(r request) (any, error) { return a.VerifyModel(r.Context(), r.PathValue("id")) })
	h.mux.HandleFunc("POST /v1/models/{id}/export", h.exportModel)
	h.mux.HandleFunc("POST /v1/models/{id}/build", h.buildModel)
	h.route("DELETE /v1/models/{id}", func(r request) (any, error) {
		return struct{}{}, a.RemoveModel(r.Context(), r.PathValue("id"))
	})
	h.route("POST /v1/check", func(request) (any, error) { return a.Check() })
	h.mux.HandleFunc("/", h.noRoute)
	return h.mux
}

// request is a request with a bounded body.
type request struct {
	*http.Request
	uploaded func() // lifts the limit of time for the upload, which would cut off long work as well
}

// route serves a pattern with the result of fn.
func (h *handler) route(pattern string, fn func(request) (any, error)) {
	h.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, h.bodyBytes)
		q := request{r, func() { h.deadline(http.NewResponseController(w).SetReadDeadline(time.Time{})) }}
		if r.ContentLength == 0 {
			q.uploaded()
		}
		v, err := fn(q)
		h.answer(w, v, err)
	})
}

// deadline notes that a deadline could not be set. A client in this process has none and needs none.
func (h *handler) deadline(err error) {
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		h.log.Debug("client went away", "err", err)
	}
}

// answer writes a result or a problem.
func (h *handler) answer(w http.ResponseWriter, v any, err error) {
	h.deadline(http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout)))
	if err != nil {
		e, _ := v.(core.Enrolled)
		err = newProblem(err, e.Refused).write(w)
	} else {
		w.Header().Set("Content-Type", "application/json")
		err = json.NewEncoder(w).Encode(v)
	}
	if err != nil {
		h.log.Debug("client went away", "err", err)
	}
}

// noRoute says which methods a path knows, or that there is no such path.
func (h *handler) noRoute(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		probe := r.Clone(r.Context())
		probe.Method = m
		if _, pattern := h.mux.Handler(probe); pattern != "/" {
			allowed = append(allowed, m)
		}
	}
	p := &Problem{Status: http.StatusNotFound, Code: "no_route", Detail: "this interface has no " + strconv.Quote(r.URL.Path)}
	if len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		p.Status, p.Code = http.StatusMethodNotAllowed, "method"
		p.Detail = fmt.Sprintf("%s does not know the method %s, only %s", r.URL.Path, r.Method, strings.Join(allowed, ", "))
	}
	p.Title = http.StatusText(p.Status)
	if err := p.write(w); err != nil {
		h.log.Debug("client went away", "err", err)
	}
}

// body decodes a request strictly: one JSON value, no unknown fields, nothing behind it.
func body(r request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			r.uploaded()
			return nil
		}
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return fmt.Errorf("%w: over %d bytes: send fewer or smaller pictures", errTooLarge, tooLarge.Limit)
	case err == nil:
		err = errors.New("there is something behind the JSON value")
	}
	return fmt.Errorf("%w: body: %v", errBadRequest, err)
}

func (h *handler) enroll(r request) (any, error) {
	var q EnrollRequest
	if err := body(r, &q); err != nil {
		return nil, err
	}
	who := core.Person{Name: q.Name, Subject: q.Subject}
	switch {
	case q.Name != "" && q.Subject != "":
		return nil, fmt.Errorf("%w: a name for a new person or the subject of a known one, not both", errBadRequest)
	case q.Sensor != "" && len(q.Pictures) > 0:
		return nil, fmt.Errorf("%w: pictures or a sensor, not both", errBadRequest)
	case q.Sensor != "":
		return h.app.EnrollPersonAt(r.Context(), who, q.Sensor)
	}
	u, err := h.app.Unit(q.Modality)
	if err != nil {
		return nil, err
	}
	pictures := make([]core.Picture, len(q.Pictures))
	for i, data := range q.Pictures {
		pictures[i] = core.Picture{Data: data, DPI: q.DPI}
	}
	return u.Enroll(r.Context(), who, pictures)
}

func (h *handler) verify(r request) (any, error) {
	var q MatchRequest
	if err := body(r, &q); err != nil {
		return nil, err
	}
	u, err := h.app.Unit(q.Modality)
	if err != nil {
		return nil, err
	}
	return u.Verify(r.Context(), q.Subject, core.Picture{Data: q.Picture, DPI: q.DPI})
}

func (h *handler) identify(r request) (any, error) {
	var q MatchRequest
	if err := body(r, &q); err != nil {
		return nil, err
	}
	if q.Subject != "" {
		return nil, fmt.Errorf("%w: identify takes no subject: verify compares with one", errBadRequest)
	}
	u, err := h.app.Unit(q.Modality)
	if err != nil {
		return nil, err
	}
	return u.Identify(r.Context(), core.Picture{Data: q.Picture, DPI: q.DPI})
}

func (h *handler) subjects(r request) (any, error) {
	limit := defaultPage
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxPage {
			return nil, fmt.Errorf("%w: limit %q: 1 to %d", errBadRequest, text, maxPage)
		}
		limit = n
	}
	list, err := h.app.Subjects(r.Context(), r.URL.Query().Get("after"), limit)
	if err != nil {
		return nil, err
	}
	return page(list, limit), nil
}

func (h *handler) importModel(r request) (any, error) {
	var q ImportRequest
	if err := body(r, &q); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(q.Path) {
		return nil, fmt.Errorf("%w: path %q must be absolute", errBadRequest, q.Path)
	}
	id, err := h.app.ImportModel(r.Context(), q.Path, q.Preset)
	return map[string]string{"id": id}, forImport(err)
}
