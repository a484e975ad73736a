package sched

import (
	"math"
	"time"
)

// rate is how many jobs of a class arrive per second, lately.
type rate struct {
	perSecond float64
	last      time.Time
}

// rateMemory is the time over which arrivals are averaged.
const rateMemory = time.Second

func (r *rate) decayed(now time.Time) float64 {
	if r.last.IsZero() {
		return 0
	}
	return r.perSecond * math.Exp(-float64(now.Sub(r.last))/float64(rateMemory))
}

func (r *rate) arrive(now time.Time) {
	r.perSecond, r.last = r.decayed(now)+1/rateMemory.Seconds(), now
}

// probes: of so many requests that an idle engine would have to refuse, one is tried, so that a curve that became too
// pessimistic mends itself.
const probes = 8

// admit says whether a job that arrives now is taken, with the time that is expected until it is done, or refused. A probe
// is taken although it would have to be refused.
func (s *Scheduler[J]) admit(c Class, deadline, now time.Time) (expected time.Duration, probe bool, r *Refusal) {
	if s.closing {
		return 0, false, refuse(ReasonClosing, c, closingRetry)
	}
	idle := s.o.Workers - s.busy
	if s.queue[c].n >= s.o.Places[c]+idle*s.largest() {
		return 0, false, refuse(ReasonFull, c, s.nextFree(now))
	}
	expected, needs := s.needs(c, now)
	has := deadline.Sub(now)
	if deadline.IsZero() || needs <= has {
		return expected, false, nil
	}
	if has > 0 && s.busy == 0 && s.queued() == 0 {
		if s.tries++; s.tries%probes == 0 {
			return expected, true, nil
		}
	}
	r = refuse(ReasonDeadline, c, needs-has+leastRetry)
	r.Needs, r.Has = needs, has
	return 0, false, r
}

func (s *Scheduler[J]) queued() (n int) {
	for c := range s.queue {
		n += s.queue[c].n
	}
	return n
}

func (s *Scheduler[J]) largest() int { return s.o.Sizes[len(s.o.Sizes)-1] }

// needs is how long a job of the class that arrives now takes, its wait included, in batches of the size that makes it
// shortest: what is expected, and what is safe. Both are 0 while nothing is known.
func (s *Scheduler[J]) needs(c Class, now time.Time) (expected, safe time.Duration) {
	ahead, best := s.ahead(c, now), s.bestSize()
	frees := s.frees(now)
	for _, size := range s.o.Sizes {
		if size > best {
			break
		}
		e, f := s.needsIn(size, ahead, frees, c, now)
		if safe == 0 || f < safe {
			expected, safe = e, f
		}
	}
	return expected, safe
}

// needsIn is needs in batches of a size: the work ahead is done by whichever worker is free first. What more urgent classes
// will bring meanwhile, at their present rate, is ahead too, as far as their head start reaches. Safe is the larger of two
// margins: that of runs whose times vary each on their own, and that of how wrong the expectations were lately (see
// learnError), because a machine that is slow now stays slow for all that wait.
func (s *Scheduler[J]) needsIn(size, ahead int, frees []float64, c Class, now time.Time) (expected, safe time.Duration) {
	own, batches := s.curve.predict(size), ahead/size
	rounds := batches / len(frees)
	start := frees[batches%len(frees)] + float64(rounds)*own.mean
	start += s.overtaken(c, start, own.mean/float64(size*s.o.Workers), now)
	mean := start + own.mean
	spread := margin * own.dev * math.Sqrt(float64(rounds+1))
	return seconds(mean), seconds(max(mean+spread, mean*s.errorFactor()))
}

const (
	// mostError bounds the factor of errorFactor: beyond it a queue is no queue any more.
	mostError = 4
	// errorMargin is how many mean absolute deviations of the error are allowed for. What exceeds it is dropped before it
	// runs (doubtful), which costs nobody else anything; more here would refuse who could be served.
	errorMargin = 2
)

// errorFactor is what expectations are multiplied by, so that few of them are exceeded.
func (s *Scheduler[J]) errorFactor() float64 {
	return min(max(s.errors.mean+errorMargin*s.errors.dev, 1), mostError)
}

// learnError compares how long a job took from its arrival with what was expected then. One that was dropped took longer
// than it waited, nobody knows how much: it teaches only if that was too long already.
func (s *Scheduler[J]) learnError(t *ticket[J], now time.Time, dropped bool) {
	if t.expected <= 0 {
		return
	}
	x := float64(now.Sub(t.arrived)) / float64(t.expected)
	if !dropped || x > s.errors.mean {
		s.errors.learn(x)
	}
}

// frees are the seconds until each worker is free, ascending; valid until the next call.
func (s *Scheduler[J]) frees(now time.Time) []float64 {
	list := s.scratch[:0]
	for i := range s.workers {
		w, left := &s.workers[i], 0.0
		if w.size > 0 {
			p := s.curve.predict(w.size)
			left = max(p.mean-now.Sub(w.started).Seconds(), p.dev) // one that is late takes a little longer still
		}
		at := len(list)
		list = append(list, left)
		for ; at > 0 && list[at-1] > left; at-- {
			list[at], list[at-1] = list[at-1], left
		}
	}
	return list
}

// overtaken is how much longer a job of the class waits, in seconds, because of more urgent jobs that come while it waits
// for start; each costs each seconds of the engine.
func (s *Scheduler[J]) overtaken(c Class, start, each float64, now time.Time) (extra float64) {
	const most = 0.9 // of the engine; more of a load is bounded by the head start
	for h := range c {
		share := min(s.rates[h].decayed(now)*each, most)
		reach := (s.o.HeadStart[c] - s.o.HeadStart[h]).Seconds()
		extra += min(start*share/(1-share), reach*share)
	}
	return extra
}

// nextFree is the time until the next run ends.
func (s *Scheduler[J]) nextFree(now time.Time) time.Duration { return seconds(s.frees(now)[0]) }

// bestSize is the size with the best throughput, whatever the deadlines.
func (s *Scheduler[J]) bestSize() int {
	best, most := s.o.Sizes[0], 0.0
	for _, size := range s.o.Sizes {
		if s.sources > 0 && size > s.sources {
			break
		}
		if p := s.curve.predict(size); p.mean > 0 && float64(size)/p.mean > most*(1+leastGain) {
			best, most = size, float64(size)/p.mean
		}
	}
	return best
}

// leastGain is how much more throughput a larger batch must give to be waited for.
const leastGain = 0.05
