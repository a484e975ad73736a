package sched

import "time"

// Stats is everything that waits, waited or was refused, since the start.
type Stats struct {
	Name    string // of the engine
	Workers int
	Running int       // jobs that run now
	Batch   Histogram // jobs of a run
	Class   [Classes]ClassStats
	Curve   []CurvePoint
}

// ClassStats are those of one class. Times are in seconds.
type ClassStats struct {
	Waiting  int               // now
	Admitted uint64            // got a place
	Done     uint64            // ran without an error of the engine
	Failed   uint64            // the engine failed
	Left     uint64            // went away while they waited
	Late     uint64            // done, but after the deadline
	Refused  map[string]uint64 // by reason
	Queue    Histogram         // wait of those that ran
	Service  Histogram         // run that they were part of
}

// CurvePoint is what is known of one batch size.
type CurvePoint struct {
	Size      int
	Mean, Dev time.Duration
}

// counters are kept under the scheduler's lock.
type counters struct {
	admitted, done, failed, left, late uint64
	refused                            [len(reasons)]uint64
	queue, service                     Histogram
}

func newCounters() counters {
	return counters{queue: newHistogram(timeBounds), service: newHistogram(timeBounds)}
}

func (c *counters) refuse(reason string) {
	for i, r := range reasons {
		if r == reason {
			c.refused[i]++
		}
	}
}

func (c *counters) stats(waiting int) ClassStats {
	s := ClassStats{
		Waiting: waiting, Admitted: c.admitted, Done: c.done, Failed: c.failed, Left: c.left, Late: c.late,
		Refused: map[string]uint64{}, Queue: c.queue.clone(), Service: c.service.clone(),
	}
	for i, r := range reasons {
		s.Refused[r] = c.refused[i]
	}
	return s
}

// Stats takes a snapshot.
func (s *Scheduler[J]) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Name: s.o.Name, Workers: s.o.Workers, Running: s.running, Batch: s.batches.clone()}
	for c := range st.Class {
		st.Class[c] = s.count[c].stats(s.queue[c].n)
	}
	for i, p := range s.curve.at {
		if p.runs > 0 {
			st.Curve = append(st.Curve, CurvePoint{Size: i + 1, Mean: seconds(p.mean), Dev: seconds(p.dev)})
		}
	}
	return st
}
