package core

import (
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"vigil/infer/sched"
	"vigil/infer/sched/metrics"
)

// figures holds the registry.
type figures struct {
	once     sync.Once
	registry *prometheus.Registry
}

// Metrics is where every part registers what it measures, and what the local interface shows at /v1/metrics. What the status
// says is in it from the beginning. It must not be gathered after Close.
func (a *Appliance) Metrics() *prometheus.Registry {
	f := &a.serving.figures
	f.once.Do(func() {
		f.registry = prometheus.NewRegistry()
		f.registry.MustRegister(statusCollector{a}, metrics.New(a.queues), collectors.NewGoCollector(),
			collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	})
	return f.registry
}

// queues is what the schedulers of the units count.
func (a *Appliance) queues() (list []sched.Stats) {
	for _, u := range a.units() {
		list = append(list, u.queue.Stats())
	}
	return list
}

// statusCollector exports what Appliance.Status says. It holds no personal data.
type statusCollector struct{ a *Appliance }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("vigil_"+name, help, labels, nil)
}

var (
	descInfo     = desc("info", "Always 1; the labels say what runs.", "version", "tpm", "runtime")
	descStarted  = desc("start_time_seconds", "When the appliance was opened, in seconds since 1970.")
	descDegraded = desc("degraded", "1 for every part that is in trouble; vigild status gives the reason.", "part")
	descPeople   = desc("people", "Enrolled people.")
	descRows     = desc("gallery_templates", "Templates in the gallery of a modality.", "modality", "model")
	descStage    = desc("stage_latency_seconds", "Quantile of the latest 4096 runs of a stage; 1 is the maximum.", "stage", "quantile")
	descRuns     = desc("stage_runs_total", "Runs of a stage.", "stage")
	descLate     = desc("stage_late_total", "Runs of a stage that took longer than its deadline.", "stage")
	descFrames   = desc("sensor_frames_total", "Frames of a sensor by what became of them.", "sensor", "outcome")
	descSensor   = desc("sensor_running", "1 while the sensor delivers frames.", "sensor", "driver", "modality")
	descOutbox   = desc("outbox_records", "Records that wait for the fleet.")
	descOutboxB  = desc("outbox_bytes", "Size of the records that wait for the fleet.")
	descDropped  = desc("outbox_dropped_total", "Records dropped since the store was made.")
	descWaiting  = desc("api_waiting", "Requests of the local interface that wait for the models.")
	descFleet    = desc("fleet_connected", "1 while the broker is connected; absent without a fleet.")
	descAudit    = desc("audit_events_total", "Entries of the audit log.")
)

// Describe implements prometheus.Collector. Nothing is promised beforehand: what there is depends on the configuration.
func (statusCollector) Describe(ch chan<- *prometheus.Desc) { ch <- descInfo }

// Collect implements prometheus.Collector.
func (c statusCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.a.Status()
	put := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	put(descInfo, gauge, 1, s.Version, s.TPM, s.Runtime)
	put(descStarted, gauge, float64(s.Started.UnixMilli())/1e3)
	put(descPeople, gauge, float64(s.Subjects))
	put(descWaiting, gauge, float64(s.APIWaiting))
	put(descAudit, counter, float64(c.a.LastEvent()))
	for _, part := range degradedParts(s.Degraded) {
		put(descDegraded, gauge, 1, part)
	}
	for _, m := range s.Models {
		put(descRows, gauge, float64(m.Templates), m.Modality, m.ID)
	}
	for _, l := range s.Latency {
		put(descRuns, counter, float64(l.Count), l.Stage)
		put(descLate, counter, float64(l.Late), l.Stage)
		for _, q := range []struct {
			name string
			ms   float64
		}{{"0.5", l.P50}, {"0.95", l.P95}, {"0.99", l.P99}, {"1", l.Max}} {
			put(descStage, gauge, q.ms/1e3, l.Stage, q.name)
		}
	}
	for _, sn := range s.Sensors {
		running := 0.0
		if sn.State == "running" {
			running = 1
		}
		put(descSensor, gauge, running, sn.Name, sn.Driver, sn.Modality)
		for _, f := range []struct {
			outcome string
			n       uint64
		}{
			{"processed", sn.Frames}, {"dropped", sn.Dropped}, {"skipped", sn.Skipped}, {"malformed", sn.Malformed},
			{"stale", sn.Stale}, {"unannounced", sn.Unannounced},
		} {
			put(descFrames, counter, float64(f.n), sn.Name, f.outcome)
		}
	}
	put(descOutbox, gauge, float64(s.Outbox.Records))
	put(descOutboxB, gauge, float64(s.Outbox.Bytes))
	put(descDropped, counter, float64(s.Outbox.Dropped))
	if s.Fleet != nil {
		connected := 0.0
		if s.Fleet.Connected {
			connected = 1
		}
		put(descFleet, gauge, connected)
	}
}

// degradedParts are the parts of "part: reason", each once.
func degradedParts(reasons []string) (parts []string) {
	seen := map[string]bool{}
	for _, r := range reasons {
		part, _, _ := strings.Cut(r, ":")
		if !seen[part] {
			seen[part] = true
			parts = append(parts, part)
		}
	}
	return parts
}
