package core

import (
	"slices"
	"sync"
	"time"

	"vigil/infer/face"
	"vigil/infer/finger"
)

// Places on the way of a frame, beside the stages of the pipeline and StageMatch.
const (
	StageDequeued = "dequeued" // the driver gave it out; cameras only
	StageTaken    = "taken"    // the sensor's loop has it
	StageBegun    = "begun"    // a worker has it: what waited for the engines has waited
	StageDecided  = "decided"  // the tracker has judged it
	StageDurable  = "durable"  // what it decided is audited; of deciding frames only
)

// wayOrder is the order of the places; those of another modality stay empty.
var wayOrder = []string{StageDequeued, StageTaken, StageBegun, face.StageDetect, face.StageAlign, face.StageQuality, face.StageLiveness,
	face.StageEmbed, finger.StageExtract, finger.StageDescribe, StageMatch, StageDecided, StageDurable}

// wayWindow is how many of the latest frames of a sensor the quantiles are taken over.
const wayWindow = 512

// wayBuckets are the upper bounds of the histograms.
var wayBuckets = [...]time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second,
}

// way is how long after their capture the frames of one sensor were how far. Its zero value is empty; a place has memory from
// its first frame on, and never more. Safe for concurrent use.
type way struct {
	mu     sync.Mutex
	places map[string]*place
}

// place is one stage.
type place struct {
	took    [wayWindow]time.Duration
	total   uint64
	sum     time.Duration
	buckets [len(wayBuckets)]uint64 // not cumulative; what is above the last is in total alone
}

// mark notes that a frame was at a place so long after its capture.
func (w *way) mark(stage string, since time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.markLocked(stage, since)
}

func (w *way) markLocked(stage string, since time.Duration) {
	p := w.places[stage]
	if p == nil {
		if w.places == nil {
			w.places = map[string]*place{}
		}
		p = &place{}
		w.places[stage] = p
	}
	p.took[p.total%wayWindow] = since
	p.total++
	p.sum += since
	for i, bound := range wayBuckets {
		if since <= bound {
			p.buckets[i]++
			break
		}
	}
}

// look marks the way up to the end of the pipeline. The stages of several faces count as if each ran for all faces before the
// next began.
func (w *way) look(t *turn, taken time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	captured := t.frame.Captured
	if !t.frame.Arrived.IsZero() {
		w.markLocked(StageDequeued, t.frame.Arrived.Sub(captured))
	}
	w.markLocked(StageTaken, taken.Sub(captured))
	at := t.began.Sub(captured)
	w.markLocked(StageBegun, at)
	for i := range t.timings {
		if s := &t.timings[i]; s.Took > 0 {
			at += s.Took
			w.markLocked(s.Stage, at)
		}
	}
}

// latencies sums the places up, in the order of the way. Late is not counted here.
func (w *way) latencies() (list []Latency) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range wayOrder {
		if p := w.places[name]; p != nil {
			list = append(list, summary(name, p.took[:min(p.total, wayWindow)], p.total))
		}
	}
	return list
}

// wayHistogram is a place as Prometheus counts it.
type wayHistogram struct {
	stage   string
	total   uint64
	sum     float64 // seconds
	buckets map[float64]uint64
}

func (w *way) histograms() (list []wayHistogram) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range wayOrder {
		p := w.places[name]
		if p == nil {
			continue
		}
		h, n := wayHistogram{name, p.total, p.sum.Seconds(), map[float64]uint64{}}, uint64(0)
		for i, bound := range wayBuckets {
			n += p.buckets[i]
			h.buckets[bound.Seconds()] = n
		}
		list = append(list, h)
	}
	return list
}

// summary takes the quantiles of some observations.
func summary(stage string, latest []time.Duration, total uint64) Latency {
	took := slices.Clone(latest)
	slices.Sort(took)
	at := func(q float64) float64 { return took[int(q*float64(len(took)-1)+0.5)].Seconds() * 1e3 }
	return Latency{Stage: stage, Count: total, P50: at(0.5), P95: at(0.95), P99: at(0.99), Max: at(1)}
}
