// Package api is the local interface of the appliance, and the client of it: HTTP/1.1 and HTTP/2 with JSON on a UNIX socket
// and, where it is configured, on the network with TLS 1.3 and certificates on both sides.
//
// Promises: what the command line can do, the socket can do, by the same code: without a daemon the client runs the same
// handler in its own process. The table in routes.go is all there is: routing, scopes and the OpenAPI document at
// /v1/openapi.json are made from it. Every error is application/problem+json (RFC 9457) with a stable "code".
//
// Who asks is known before anything is read: the user at the other end of the socket, the name in the client's certificate,
// or a token, which takes their place. It stands in the audit beside what was asked for. A viewer may look and ask, an
// enroller also enrol, list and erase people, an operator everything. Verifying and identifying take the least scope on
// purpose: who only opens a door must not need the right to enrol somebody for it.
//
// Everything is bounded: connections (an idle one makes room for a new client), requests in progress, headers, bodies one by
// one and their memory together, streams of events, enrolments in progress, clients whose rate is known. Who sends or reads
// too slowly is cut off. What is refused is counted at /v1/metrics.
//
// The server owns its listeners and connections; it borrows the appliance, and no request uses it any more when Close has
// returned.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"vigil/daemon/api/kserve"
	"vigil/daemon/api/openapi"
	"vigil/daemon/config"
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

	access       *access
	rates        *rates
	memory       *budget
	buffers      *buffers
	counters     *counters
	enrollments  *enrollments
	streams      chan struct{} // slots for streams of events
	heartbeat    time.Duration // of streams
	eventTimeout time.Duration
	models       *kserve.Server // nil where it is not served
	document     []byte
}

// newHandler serves the appliance to those whom who knows; log hears of answers that nobody took. The caller closes it when no
// request is in progress.
func newHandler(a *core.Appliance, who *access, log *slog.Logger, bodyBytes int64) *handler {
	cfg := a.APIConfig()
	doc, err := Document(cfg.KServe)
	if err != nil {
		panic(err) // it is made from what is compiled in
	}
	h := &handler{
		app: a, log: log.With("room", "api"), mux: http.NewServeMux(), bodyBytes: bodyBytes,
		access: who, rates: newRates(cfg.RatePerSecond, cfg.Burst, time.Now), memory: &budget{free: memoryBytes},
		buffers: newBuffers(), counters: newCounters(a.Metrics()), enrollments: newEnrollments(enrollmentIdle),
		streams: make(chan struct{}, maxEventStreams), heartbeat: eventHeartbeat, eventTimeout: eventTimeout, document: doc,
	}
	if cfg.KServe {
		h.models = kserve.New(&stages{app: a})
	}
	for i := range routes {
		if !routes[i].kserve || cfg.KServe {
			h.mount(&routes[i])
		}
	}
	h.mux.HandleFunc("/", h.noRoute)
	return h
}

// Close gives up enrolments in progress and frees models that were loaded for clients. It may be called twice.
func (h *handler) Close() error {
	h.enrollments.close()
	if h.models != nil {
		return h.models.Close()
	}
	return nil
}

// ServeHTTP implements http.Handler: who asks, how often, and until when; then the route.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out := &recorder{ResponseWriter: w, route: "none", start: time.Now(), kserve: r.URL.Path == "/v2" || strings.HasPrefix(r.URL.Path, "/v2/")}
	defer h.counters.request(out, r.Method)
	if len(r.TransferEncoding) > 0 && r.ProtoMajor == 1 {
		// A length may have stood beside it, which net/http has dropped: then the connection must not be used again (RFC 9112, 6.1).
		w.Header().Set("Connection", "close")
	}
	c, err := h.identify(r)
	if err != nil {
		h.answer(out, http.StatusOK, nil, err)
		return
	}
	ctx := core.WithCaller(withClient(r.Context(), c), c.who)
	wait, err := deadlineOf(r)
	if err != nil {
		h.answer(out, http.StatusOK, nil, err)
		return
	}
	if wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, wait)
		defer cancel()
	}
	h.mux.ServeHTTP(out, r.WithContext(ctx))
}

// deadlineHeader is how long a client waits for the answer. Work that cannot be done by then is refused or given up.
const (
	deadlineHeader = "Vigil-Deadline-Ms"
	maxDeadlineMS  = 60_000
)

// deadlineOf is how long the client waits, 0 for as long as it takes.
func deadlineOf(r *http.Request) (time.Duration, error) {
	text, ok, err := header(r, deadlineHeader)
	if err != nil || !ok {
		return 0, err
	}
	ms, err := strconv.Atoi(text)
	if err != nil || ms < 1 || ms > maxDeadlineMS {
		return 0, fmt.Errorf("%w: %s: %q: 1 to %d milliseconds", errBadRequest, deadlineHeader, text, maxDeadlineMS)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// header is the value of a header that may be there once.
func header(r *http.Request, name string) (value string, ok bool, err error) {
	switch list := r.Header.Values(name); len(list) {
	case 0:
		return "", false, nil
	case 1:
		return list[0], true, nil
	default:
		return "", true, fmt.Errorf("%w: the header %s is there %d times", errBadRequest, name, len(list))
	}
}

// clientOf is who sends a request that passed ServeHTTP.
func clientOf(ctx context.Context) *client {
	if c, ok := ctx.Value(clientKey{}).(*client); ok {
		return c
	}
	return nobody
}

// recorder notes what became of a request.
type recorder struct {
	http.ResponseWriter
	route  string
	status int
	start  time.Time
	kserve bool // errors have KServe's form
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// request is a request with a bounded body.
type request struct {
	*http.Request
	uploaded func() // lifts the limit of time for the upload, which would cut off long work as well
	query    url.Values
}

// mount serves one row of the table.
func (h *handler) mount(t *route) {
	h.mux.HandleFunc(t.Method+" "+t.Path, func(w http.ResponseWriter, r *http.Request) {
		if out, ok := w.(*recorder); ok {
			out.route = t.Path
		}
		err := admit(clientOf(r.Context()), t.Scope)
		var q url.Values
		if err == nil {
			q, err = queryOf(r, t.Params)
		}
		if err != nil {
			h.answer(w, http.StatusOK, nil, err)
			return
		}
		factor := int64(2)
		if !isJSON(r) {
			factor = 1
		}
		paid := &charged{ReadCloser: http.MaxBytesReader(w, r.Body, h.bodyBytes), from: h.memory, factor: factor}
		defer paid.settle()
		r.Body = paid
		h.serve(t, w, request{r, func() { h.deadline(http.NewResponseController(w).SetReadDeadline(time.Time{})) }, q})
	})
}

func (h *handler) serve(t *route, w http.ResponseWriter, q request) {
	if q.ContentLength == 0 {
		q.uploaded()
	}
	if t.stream != nil {
		t.stream(h, w, q)
		return
	}
	v, err := t.serve(h, q)
	status := http.StatusOK
	if t.status != 0 {
		status = t.status
	}
	h.answer(w, status, v, err)
}

// queryOf reads the parameters of the query strictly: those of the route, each once.
func queryOf(r *http.Request, known []openapi.Param) (url.Values, error) {
	if r.URL.RawQuery == "" {
		return nil, nil
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("%w: query: %v", errBadRequest, err)
	}
	for name, values := range q {
		if !slices.ContainsFunc(known, func(p openapi.Param) bool { return p.In == openapi.Query && p.Name == name }) {
			return nil, fmt.Errorf("%w: query: unknown parameter %q", errBadRequest, name)
		}
		if len(values) != 1 || values[0] == "" {
			return nil, fmt.Errorf("%w: query: %s must be there once, with a value, or not at all", errBadRequest, name)
		}
	}
	return q, nil
}

// deadline notes that a deadline could not be set. A client in this process has none and needs none.
func (h *handler) deadline(err error) {
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		h.log.Debug("client went away", "err", err)
	}
}

// answer writes a result or a problem.
func (h *handler) answer(w http.ResponseWriter, status int, v any, err error) {
	h.deadline(http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout)))
	if err != nil {
		e, _ := v.(core.Enrolled)
		p := newProblem(err, e.Refused)
		h.counters.problems.WithLabelValues(p.Code).Inc()
		if p.Status == http.StatusInternalServerError {
			h.log.Error("a request failed", "err", err)
		}
		if out, ok := w.(*recorder); ok && out.kserve {
			err = p.writeKServe(w)
		} else {
			err = p.write(w)
		}
	} else {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		err = json.NewEncoder(w).Encode(v)
	}
	if err != nil {
		h.log.Debug("client went away", "err", err)
	}
}

// noRoute says which methods a path knows, or that there is no such path.
func (h *handler) noRoute(w http.ResponseWriter, r *http.Request) {
	if err := admit(clientOf(r.Context()), config.ScopeViewer); err != nil {
		h.answer(w, http.StatusOK, nil, err)
		return
	}
	var allowed []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		probe := r.Clone(r.Context())
		probe.Method = m
		if _, pattern := h.mux.Handler(probe); pattern != "/" {
			allowed = append(allowed, m)
		}
	}
	err := fmt.Errorf("%w %q", errNoRoute, r.URL.Path)
	if len(allowed) > 0 {
		list := strings.Join(allowed, ", ")
		w.Header().Set("Allow", list)
		err = fmt.Errorf("%s %w %s, only %s", r.URL.Path, errMethod, r.Method, list)
	}
	h.answer(w, http.StatusOK, nil, err)
}

// isJSON reports whether a body is JSON: by its type, or because nothing is said.
func isJSON(r *http.Request) bool {
	text := r.Header.Get("Content-Type")
	kind, _, err := mime.ParseMediaType(text)
	return text == "" || err == nil && kind == "application/json"
}

// body decodes a request strictly: one JSON value, no unknown fields, nothing behind it.
func body(r request, v any) error {
	if !isJSON(r.Request) {
		return fmt.Errorf("%w: %q, not application/json", errMedia, r.Header.Get("Content-Type"))
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			r.uploaded()
			return nil
		}
	}
	return badBody(err)
}

// badBody is why a body was not taken.
func badBody(err error) error {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return fmt.Errorf("%w: over %d bytes: send fewer or smaller pictures", errTooLarge, tooLarge.Limit)
	case errors.Is(err, errOverloaded):
		return err
	case err == nil:
		err = errors.New("there is something behind the JSON value")
	}
	return fmt.Errorf("%w: body: %v", errBadRequest, err)
}
