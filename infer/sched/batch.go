package sched

import "time"

// doubtful is how many mean absolute deviations over the mean a run alone must still fit into the time of a job that is
// taken; admission asks for more (margin). A run that ends late is worth nothing to its caller and keeps another waiting.
// Where nobody else waits, less is asked: such a run costs nobody, and teaches a curve that is too gloomy.
const (
	doubtful = 3.5
	lonely   = 2
)

// pick fills s.picked with the first ready tickets, up to the largest batch, and drops those whose deadline is over or
// would hardly be kept if they ran alone now.
func (s *Scheduler[J]) pick(now time.Time) {
	s.picked = s.picked[:0]
	one := s.curve.predict(1)
	room := float64(doubtful)
	if s.queued() <= 1 {
		room = lonely
	}
	alone := seconds(one.mean + room*one.dev)
	sc := s.scan()
	for len(s.picked) < s.largest() {
		t := sc.next()
		if t == nil {
			return
		}
		if !t.deadline.IsZero() && now.Add(alone).After(t.deadline) && !(t.probe && now.Before(t.deadline)) {
			s.drop(t, refuse(ReasonExpired, t.class, s.nextFree(now)))
			continue
		}
		s.picked = append(s.picked, t)
	}
}

// closes decides about a batch of the first picked tickets: how many of them run now, 0 for none yet; then until is when
// to look again, at the latest.
func (s *Scheduler[J]) closes(now time.Time) (n int, until time.Time) {
	have := len(s.picked)
	if have == 0 {
		return 0, time.Time{}
	}
	target, urgent := s.target(now)
	n = s.fits(have, now)
	if have >= target || s.closing || s.sources > 0 && s.running+have >= s.sources {
		return n, time.Time{}
	}
	until = s.picked[0].arrived.Add(s.o.MaxDelay)
	for _, t := range s.picked {
		if at := t.arrived.Add(s.o.MaxDelay); at.Before(until) {
			until = at
		}
	}
	if s.o.MaxDelay == 0 {
		until = now // without a deadline there is no slack to spend
		if !urgent.IsZero() {
			until = urgent
		}
	}
	if !urgent.IsZero() {
		p := s.curve.predict(n)
		if slack := urgent.Add(-seconds(p.mean + max(margin, doubtful)*p.dev)); slack.Before(until) {
			until = slack
		}
	}
	if !until.After(now) {
		return n, time.Time{}
	}
	return 0, until
}

// target is the size with the best throughput that keeps the deadline of everyone picked, and the first of the deadlines.
func (s *Scheduler[J]) target(now time.Time) (size int, urgent time.Time) {
	for _, t := range s.picked {
		if !t.deadline.IsZero() && (urgent.IsZero() || t.deadline.Before(urgent)) {
			urgent = t.deadline
		}
	}
	best := s.bestSize()
	for i := len(s.o.Sizes) - 1; i > 0; i-- {
		n := s.o.Sizes[i]
		if n <= best && s.inTime(n, urgent, now) {
			return n, urgent
		}
	}
	return s.o.Sizes[0], urgent
}

// fits is the best size of at most have tickets whose deadlines it keeps.
func (s *Scheduler[J]) fits(have int, now time.Time) int {
	best, most := s.o.Sizes[0], 0.0
	var urgent time.Time
	for i, size := 0, 0; size < len(s.o.Sizes) && s.o.Sizes[size] <= have; size++ {
		n := s.o.Sizes[size]
		for ; i < n; i++ {
			if d := s.picked[i].deadline; !d.IsZero() && (urgent.IsZero() || d.Before(urgent)) {
				urgent = d
			}
		}
		p := s.curve.predict(n)
		if gain := float64(n) / max(p.mean, 1e-9); gain > most && (size == 0 || s.inTime(n, urgent, now)) {
			best, most = n, gain
		}
	}
	return best
}

func (s *Scheduler[J]) inTime(size int, deadline, now time.Time) bool {
	p := s.curve.predict(size)
	return deadline.IsZero() || !now.Add(seconds(p.mean+p.dev)).After(deadline)
}
