package api

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// counters are the figures of the interface.
type counters struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec   // route, method, status
	took     *prometheus.HistogramVec // route
	problems *prometheus.CounterVec   // code
	evicted  *prometheus.CounterVec   // listener
	streams  prometheus.Gauge
	cutOff   prometheus.Counter
}

// newCounters registers the figures, or finds those of another handler of the same appliance.
func newCounters(r *prometheus.Registry) *counters {
	return &counters{
		registry: r,
		requests: register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vigil_http_requests_total", Help: "Requests by route, method and status."}, []string{"route", "method", "status"})),
		took: register(r, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "vigil_http_request_seconds", Help: "From the header of a request to the end of its answer.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)}, []string{"route"})),
		problems: register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vigil_http_problems_total", Help: "Refused and failed requests by the code of the problem."}, []string{"code"})),
		evicted: register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vigil_http_connections_evicted_total", Help: "Idle connections that were closed to make room."}, []string{"listener"})),
		streams: register(r, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vigil_event_streams", Help: "Open streams of events."})),
		cutOff: register(r, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vigil_event_streams_cut_off_total", Help: "Streams of events whose reader was too slow."})),
	}
}

// register registers a collector, or returns the one that is there.
func register[T prometheus.Collector](r *prometheus.Registry, c T) T {
	var there prometheus.AlreadyRegisteredError
	if err := r.Register(c); errors.As(err, &there) {
		return there.ExistingCollector.(T)
	} else if err != nil {
		panic(err) // two figures of one name
	}
	return c
}

// connections shows how many connections a listener has open; a listener of an earlier server gives its place up.
func (n *counters) connections(listener string, count func() int) {
	g := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "vigil_http_connections", Help: "Open connections.", ConstLabels: prometheus.Labels{"listener": listener},
	}, func() float64 { return float64(count()) })
	n.registry.Unregister(g)
	n.registry.MustRegister(g)
}

// request counts what became of a request.
func (n *counters) request(out *recorder, method string) {
	switch method {
	case http.MethodGet, http.MethodPost, http.MethodDelete, http.MethodHead, http.MethodPut, http.MethodPatch, http.MethodOptions:
	default:
		method = "other" // of clients' invention, without bound
	}
	status := out.status
	if status == 0 {
		status = http.StatusOK
	}
	n.requests.WithLabelValues(out.route, method, strconv.Itoa(status)).Inc()
	n.took.WithLabelValues(out.route).Observe(time.Since(out.start).Seconds())
}
