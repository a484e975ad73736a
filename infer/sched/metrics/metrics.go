// Package metrics shows what the schedulers count as Prometheus metrics.
//
// Promises: Collect takes one snapshot of each scheduler and blocks on nothing but their short locks; the values of one
// scheduler are of one moment. Names and labels are those of the descriptions below and change only with the major version. It
// owns nothing and registers nothing.
package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"vigil/infer/sched"
)

// Collector implements prometheus.Collector.
type Collector struct {
	engines func() []sched.Stats
}

// New shows the schedulers that engines returns, whose names differ.
func New(engines func() []sched.Stats) *Collector { return &Collector{engines} }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("vigil_sched_"+name, help, append([]string{"engine"}, labels...), nil)
}

var (
	queueSeconds = desc("queue_seconds", "Wait in the queue of jobs that ran.", "class")
	serviceSecs  = desc("service_seconds", "Time of the run that a job was part of.", "class")
	batchSize    = desc("batch_size", "Jobs of a run.")
	jobs         = desc("jobs_total", "Jobs by how they ended: done in time, late, failed in the engine, left while they waited.", "class", "outcome")
	refused      = desc("refused_total", "Jobs that were not run, by reason.", "class", "reason")
	admitted     = desc("admitted_total", "Jobs that got a place in the queue.", "class")
	waiting      = desc("waiting", "Jobs in the queue.", "class")
	running      = desc("running", "Jobs that run.")
	predicted    = desc("predicted_seconds", "Mean time of a batch of the size, as the scheduler expects it.", "size")
)

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{queueSeconds, serviceSecs, batchSize, jobs, refused, admitted, waiting, running, predicted} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.engines() {
		collect(ch, &s)
	}
}

func collect(ch chan<- prometheus.Metric, s *sched.Stats) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{s.Name}, labels...)...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), append([]string{s.Name}, labels...)...)
	}
	ch <- histogram(batchSize, &s.Batch, s.Name)
	gauge(running, float64(s.Running))
	for _, p := range s.Curve {
		gauge(predicted, p.Mean.Seconds(), strconv.Itoa(p.Size))
	}
	for i := range s.Class {
		c, class := &s.Class[i], sched.Class(i).String()
		ch <- histogram(queueSeconds, &c.Queue, s.Name, class)
		ch <- histogram(serviceSecs, &c.Service, s.Name, class)
		gauge(waiting, float64(c.Waiting), class)
		counter(admitted, c.Admitted, class)
		counter(jobs, c.Done-c.Late, class, "done")
		counter(jobs, c.Late, class, "late")
		counter(jobs, c.Failed, class, "failed")
		counter(jobs, c.Left, class, "left")
		for reason, n := range c.Refused {
			counter(refused, n, class, reason)
		}
	}
}

// histogram makes the buckets cumulative, as Prometheus has them.
func histogram(d *prometheus.Desc, h *sched.Histogram, labels ...string) prometheus.Metric {
	buckets, sum := make(map[float64]uint64, len(h.Bounds)), uint64(0)
	for i, bound := range h.Bounds {
		sum += h.Counts[i]
		buckets[bound] = sum
	}
	return prometheus.MustNewConstHistogram(d, h.Count, h.Sum, buckets, labels...)
}
