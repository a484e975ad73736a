package api

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// live answers without touching anything: the process serves.
func (h *handler) live(request) (any, error) { return Live{Live: true}, nil }

// ready is a problem while nobody can be recognised.
func (h *handler) ready(request) (any, error) {
	if err := h.app.Ready(); err != nil {
		return nil, err
	}
	return Ready{Ready: true}, nil
}

// health says what is wrong.
func (h *handler) health(request) (any, error) {
	s := h.app.Status()
	out := Health{State: s.State, Degraded: s.Degraded, Notes: s.Notes}
	if err := h.app.Ready(); err != nil {
		out.Reason = err.Error()
	} else {
		out.Ready = true
	}
	return out, nil
}

// metrics shows the registry in the text format of Prometheus.
func (h *handler) metrics(w http.ResponseWriter, r request) {
	promhttp.HandlerFor(h.app.Metrics(), promhttp.HandlerOpts{
		DisableCompression: true, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4,
	}).ServeHTTP(w, r.Request)
}

// openAPI shows the document.
func (h *handler) openAPI(w http.ResponseWriter, _ request) {
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(h.document); err != nil {
		h.log.Debug("client went away", "err", err)
	}
}
