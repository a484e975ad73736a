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
	descState    = desc("sensor_state", "1 for the state that a sensor is in.", "sensor", "state")
	descFalls    = desc("sensor_falls_total", "Times that a sensor stopped delivering.", "sensor")
	descSilent   = desc("sensor_unaudited_total", "Troubles and recoveries of a sensor that the audit log has no entry for, because there were too many.", "sensor")
	descCopies   = desc("sensor_copies_total", "Copies of whole pictures on this machine before the models' input is made of them.", "sensor")
	descWay      = desc("sensor_latency_seconds", "Time from the capture of a frame, by the driver's clock, to a place on its way.", "sensor", "stage")
	descCamera   = desc("camera_events_total", "What the driver of a camera counted.", "sensor", "event")
	descPair     = desc("pair_unmatched_total", "Frames of two paired cameras that had no partner.", "sensor", "infrared")
	descModule   = desc("module_events_total", "What became of the serial line to a fingerprint module.", "sensor", "event")
	descDamage   = desc("module_damaged_packets_total", "Damaged packets of a fingerprint module, by kind.", "sensor", "damage")
	descBaud     = desc("module_baud", "Rate of the serial line; 0 while the module has not been found.", "sensor")
	descActuator = desc("actuator_state", "1 for the state that an output is in.", "actuator", "driver", "state")
	descGrants   = desc("actuator_grants_total", "Grants of an output by what became of them.", "actuator", "outcome")
	descLine     = desc("osdp_events_total", "What a control panel sent over its RS-485 line.", "actuator", "event")
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
	for i := range s.Sensors {
		s.Sensors[i].collect(put)
	}
	for _, sn := range c.a.allSensors() {
		for _, h := range sn.way.histograms() {
			ch <- prometheus.MustNewConstHistogram(descWay, h.total, h.sum, h.buckets, sn.cfg.Name, h.stage)
		}
	}
	for i := range s.Actuators {
		s.Actuators[i].collect(put)
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

// putter gives one value to Prometheus.
type putter func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string)

// each counts by the last label.
func (put putter) each(d *prometheus.Desc, name string, counts map[string]uint64) {
	for what, n := range counts {
		put(d, prometheus.CounterValue, float64(n), name, what)
	}
}

// camera gives what a driver counted.
func (put putter) camera(name string, c *CameraStatus) {
	if c == nil {
		return
	}
	put.each(descCamera, name, map[string]uint64{
		"frame": c.Frames, "lost": c.Lost, "starved": c.Starved, "let_go": c.LetGo, "damaged": c.Damaged, "restart": c.Restarts, "connect": c.Connects,
		"unstamped": c.Unstamped,
	})
}

// collect gives the figures of a sensor.
func (s *SensorStatus) collect(put putter) {
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	running := 0.0
	if s.State == stateRunning {
		running = 1
	}
	put(descSensor, gauge, running, s.Name, s.Driver, s.Modality)
	put(descState, gauge, 1, s.Name, s.State)
	put(descFalls, counter, float64(s.Falls), s.Name)
	put(descSilent, counter, float64(s.Unaudited), s.Name)
	put(descCopies, counter, float64(s.Copies), s.Name)
	put.each(descFrames, s.Name, map[string]uint64{
		"processed": s.Frames, "dropped": s.Dropped, "skipped": s.Skipped, "malformed": s.Malformed, "stale": s.Stale,
		"unannounced": s.Unannounced,
	})
	put.camera(s.Name, s.Camera)
	if p := s.Pair; p != nil {
		put.camera(p.Sensor, p.Camera)
		put(descPair, counter, float64(p.Unmatched), s.Name, p.Sensor)
	}
	if m := s.Module; m != nil {
		put.each(descModule, s.Name, map[string]uint64{"touch": m.Touches, "lost": m.Lost, "command": m.Commands, "again": m.Again})
		put.each(descDamage, s.Name, m.Damage)
		put(descBaud, gauge, float64(m.Baud), s.Name)
	}
}

// collect gives the figures of an output.
func (s *ActuatorStatus) collect(put putter) {
	put(descActuator, prometheus.GaugeValue, 1, s.Name, s.Driver, s.State)
	if l := s.Line; l != nil {
		put.each(descLine, s.Name, map[string]uint64{
			"frame": l.Frames, "refused": l.Refused, "repeated": l.Repeated, "bad_checksum": l.BadChecksum, "bad_mac": l.BadMAC, "foreign": l.Foreign,
			"session": l.Sessions,
		})
	}
	put.each(descGrants, s.Name, map[string]uint64{"granted": s.Granted, "refused": s.Refused, "failed": s.Failed})
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
