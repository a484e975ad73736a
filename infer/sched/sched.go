package sched

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Executor runs batches.
type Executor[J any] interface {
	// Run does the jobs of a batch on one of the workers, 0 to Workers-1, which has one batch at a time. Its error is
	// that of every job; the time of a run that fails teaches nothing. It does not keep batch.
	Run(worker int, batch []J) error
}

// Options are what New needs beside the executor.
type Options struct {
	Name    string       // of the engine, in Stats
	Workers int          // batches at a time; 0 means 1
	Sizes   []int        // of batches, ascending from 1; nil means 1 alone
	Places  [Classes]int // jobs of each class that may wait; those beyond are refused as ReasonFull
	// MaxDelay is how long a job waits at most for company in its batch; 0: as long as its deadline has slack, and not at
	// all without a deadline.
	MaxDelay  time.Duration
	HeadStart [Classes]time.Duration // zero means HeadStarts
	Now       func() time.Time       // nil is time.Now
	Curve     Curve                  // of a run before, or of a warm-up
}

func (o *Options) complete() error {
	if o.Workers == 0 {
		o.Workers = 1
	}
	if len(o.Sizes) == 0 {
		o.Sizes = []int{1}
	}
	if o.HeadStart == [Classes]time.Duration{} {
		o.HeadStart = HeadStarts
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Sizes = slices.Clone(o.Sizes)
	for i, n := range o.Sizes {
		if i == 0 && n != 1 || i > 0 && n <= o.Sizes[i-1] || n > MaxSize {
			return fmt.Errorf("cannot schedule batches of %v: sizes ascend from 1 to at most %d", o.Sizes, MaxSize)
		}
	}
	if o.Workers < 1 || o.Workers > MaxWorkers {
		return fmt.Errorf("cannot schedule for %d workers: 1 to %d", o.Workers, MaxWorkers)
	}
	for c, n := range o.Places {
		if n < 0 || n > MaxPlaces {
			return fmt.Errorf("cannot keep %d places for class %v: 0 to %d", n, Class(c), MaxPlaces)
		}
		if c > 0 && o.HeadStart[c] < o.HeadStart[c-1] {
			return errors.New("a head start cannot be larger than that of a less urgent class")
		}
	}
	return nil
}

// Bounds of Options.
const (
	MaxWorkers = 256
	MaxPlaces  = 1 << 16
)

// Scheduler shares an engine among jobs. Its methods are safe for concurrent use.
type Scheduler[J any] struct {
	o    Options
	exec Executor[J]

	mu      sync.Mutex
	wake    *sync.Cond // a job became ready, a batch may close, or the end
	alarm   *time.Timer
	queue   [Classes]line[J]
	count   [Classes]counters
	rates   [Classes]rate
	curve   Curve
	errors  point // of expectations: time that jobs took by the time that was expected
	batches Histogram
	workers []worker[J]
	busy    int // workers that run
	running int // jobs that run
	sources int // jobs that there can be at once; 0 unknown
	tries   int
	spare   []*ticket[J]
	picked  []*ticket[J]
	scratch []float64
	closing bool
	ended   sync.WaitGroup
}

type worker[J any] struct {
	size    int // of the batch that runs; 0: idle
	started time.Time
	tickets []*ticket[J]
	batch   []J
}

// New starts the workers. The caller closes the Scheduler.
func New[J any](exec Executor[J], o Options) (*Scheduler[J], error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	largest := o.Sizes[len(o.Sizes)-1]
	s := &Scheduler[J]{
		o: o, exec: exec, curve: Curve{at: slices.Clone(o.Curve.at)}, batches: newHistogram(sizeBounds),
		workers: make([]worker[J], o.Workers), scratch: make([]float64, 0, o.Workers), picked: make([]*ticket[J], 0, largest),
	}
	s.wake = sync.NewCond(&s.mu)
	for c := range s.count {
		s.count[c] = newCounters()
	}
	for i := range s.workers {
		s.workers[i].tickets, s.workers[i].batch = make([]*ticket[J], 0, largest), make([]J, 0, largest)
		s.ended.Go(func() { s.work(i) })
	}
	return s, nil
}

// Observe teaches the curve a run outside the scheduler, such as a warm-up.
func (s *Scheduler[J]) Observe(size int, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.curve.Observe(size, took)
}

// Curve is a copy of what is known of the engine now.
func (s *Scheduler[J]) Curve() Curve {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Curve{at: slices.Clone(s.curve.at)}
}

// SetCurve replaces what is known of the engine.
func (s *Scheduler[J]) SetCurve(c Curve) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.curve = Curve{at: slices.Clone(c.at)}
}

// Distrust makes what is known weigh little against new runs: the engine has been exchanged.
func (s *Scheduler[J]) Distrust() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.curve.at {
		s.curve.at[i].runs = min(s.curve.at[i].runs, trustedRuns)
	}
}

// Waiting is how many jobs of a class are in the queue.
func (s *Scheduler[J]) Waiting(c Class) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queue[c].n
}

// SetSources says how many jobs there can be at once, because each of so many callers has one at a time: a batch does not
// wait for more than can come. 0 is unknown.
func (s *Scheduler[J]) SetSources(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sources = n
	s.wake.Broadcast()
}

// Do reserves a place and runs the job in it. Errors: *Refusal, the context's, the executor's.
func (s *Scheduler[J]) Do(ctx context.Context, c Class, deadline time.Time, job J) error {
	p, err := s.Reserve(c, deadline)
	if err != nil {
		return err
	}
	return p.Run(ctx, job)
}

// Place is a job's place in the queue, held while the job is prepared. Run or Cancel it once.
type Place[J any] struct {
	s   *Scheduler[J]
	t   *ticket[J]
	use uint64
}

// Reserve takes a place in the queue, so that the job can be prepared while it moves up; others pass it until Run says that
// it is ready. A zero deadline is none. It blocks on nothing. Errors: *Refusal.
func (s *Scheduler[J]) Reserve(c Class, deadline time.Time) (Place[J], error) {
	c = min(c, Classes-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.o.Now()
	s.rates[c].arrive(now)
	expected, probe, r := s.admit(c, deadline, now)
	if r != nil {
		s.count[c].refuse(r.Reason)
		return Place[J]{}, r
	}
	s.count[c].admitted++
	t := s.ticket()
	t.use++
	t.class, t.arrived, t.rank, t.state = c, now, now.Add(s.o.HeadStart[c]), reserved
	t.deadline, t.expected, t.probe = deadline, expected, probe
	s.queue[c].push(t)
	return Place[J]{s: s, t: t, use: t.use}, nil
}

// ticket takes one from the spare ones.
func (s *Scheduler[J]) ticket() *ticket[J] {
	if n := len(s.spare); n > 0 {
		t := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return t
	}
	t := &ticket[J]{done: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	t.timer.Stop()
	return t
}

// putBack makes a ticket that nobody waits for any more a spare one.
func (s *Scheduler[J]) putBack(t *ticket[J]) {
	var none J
	t.job, t.err, t.state, t.ran = none, nil, free, false
	s.spare = append(s.spare, t)
}

// Cancel gives the place up. After Run it does nothing.
func (p Place[J]) Cancel() {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	t := p.t
	if t.use != p.use {
		return
	}
	switch t.state {
	case reserved:
		s.queue[t.class].remove(t)
		s.count[t.class].left++
		s.putBack(t)
	case finished: // refused while it was prepared; a Run that waits for it would be in the middle of a second call
		if !t.ran {
			<-t.done
			s.putBack(t)
		}
	}
}

// Expire gives the place up because the job's time was over before it was ready, and returns the refusal.
func (p Place[J]) Expire() error {
	s, t := p.s, p.t
	s.mu.Lock()
	defer s.mu.Unlock()
	r := refuse(ReasonExpired, t.class, s.nextFree(s.o.Now()))
	if t.use == p.use && t.state == reserved {
		s.drop(t, r)
		<-t.done
		s.putBack(t)
	}
	return r
}

// Run makes the job ready and blocks until it is done, refused (*Refusal), or, while it waits, the context ends. The
// executor's error is returned as it is.
func (p Place[J]) Run(ctx context.Context, job J) error {
	s, t := p.s, p.t
	s.mu.Lock()
	if t.use != p.use || t.ran || t.state == free {
		s.mu.Unlock()
		return errors.New("cannot run a place of the queue twice")
	}
	t.ran = true
	if t.state == reserved {
		t.job, t.state = job, ready
		s.wake.Signal()
	}
	deadline := t.deadline
	s.mu.Unlock()
	return s.wait(ctx, t, deadline)
}

// wait returns when the ticket is finished, or leaves the queue when its time or its context is over.
func (s *Scheduler[J]) wait(ctx context.Context, t *ticket[J], deadline time.Time) error {
	var over <-chan time.Time
	if !deadline.IsZero() {
		t.timer.Reset(deadline.Sub(s.o.Now()))
		defer t.timer.Stop()
		over = t.timer.C
	}
	select {
	case <-t.done:
	case <-ctx.Done():
		s.leave(t, ctx.Err())
		<-t.done
	case <-over:
		s.leave(t, nil)
		<-t.done
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := t.err
	s.putBack(t)
	return err
}

// leave takes a ticket that still waits out of the queue; one that runs stays. why is nil for a deadline that passed.
func (s *Scheduler[J]) leave(t *ticket[J], why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.state != ready {
		return
	}
	if why == nil {
		s.drop(t, refuse(ReasonExpired, t.class, s.nextFree(s.o.Now())))
		return
	}
	s.count[t.class].left++
	s.queue[t.class].remove(t)
	s.finish(t, why)
}

// drop refuses a queued ticket.
func (s *Scheduler[J]) drop(t *ticket[J], r *Refusal) {
	if r.Reason == ReasonExpired {
		s.learnError(t, s.o.Now(), true)
	}
	s.count[t.class].refuse(r.Reason)
	s.queue[t.class].remove(t)
	s.finish(t, r)
}

// finish hands the result over; there is always room for it.
func (s *Scheduler[J]) finish(t *ticket[J], err error) {
	t.err, t.state = err, finished
	t.done <- struct{}{}
}

// work is the loop of one worker.
func (s *Scheduler[J]) work(i int) {
	for s.take(i) {
		w := &s.workers[i]
		err := s.exec.Run(i, w.batch)
		s.settle(w, err)
	}
}

// take blocks until the worker has a batch; false at the end.
func (s *Scheduler[J]) take(i int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		now := s.o.Now()
		s.pick(now)
		n, until := s.closes(now)
		if n > 0 {
			s.start(&s.workers[i], n, now)
			return true
		}
		if s.closing {
			return false
		}
		if !until.IsZero() {
			s.remind(until.Sub(now))
		}
		s.wake.Wait()
	}
}

// remind wakes the workers later.
func (s *Scheduler[J]) remind(after time.Duration) {
	if s.alarm == nil {
		s.alarm = time.AfterFunc(after, s.ring)
		return
	}
	s.alarm.Reset(after)
}

func (s *Scheduler[J]) ring() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wake.Broadcast()
}

// start gives the first n picked tickets to a worker.
func (s *Scheduler[J]) start(w *worker[J], n int, now time.Time) {
	w.size, w.started, w.tickets, w.batch = n, now, w.tickets[:0], w.batch[:0]
	for _, t := range s.picked[:n] {
		s.queue[t.class].remove(t)
		t.state = running
		s.count[t.class].queue.observe(now.Sub(t.arrived).Seconds())
		w.tickets, w.batch = append(w.tickets, t), append(w.batch, t.job)
	}
	s.busy++
	s.running += n
	s.batches.observe(float64(n))
	s.wake.Signal() // there may be work for another worker
}

// settle ends a run.
func (s *Scheduler[J]) settle(w *worker[J], err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.o.Now()
	took := now.Sub(w.started)
	if err == nil {
		s.curve.Observe(w.size, took)
	}
	for _, t := range w.tickets {
		if err == nil {
			s.learnError(t, now, false)
		}
		c := &s.count[t.class]
		c.service.observe(took.Seconds())
		switch {
		case err != nil:
			c.failed++
		case !t.deadline.IsZero() && now.After(t.deadline):
			c.late++
			c.done++
		default:
			c.done++
		}
		s.finish(t, err)
	}
	s.busy--
	s.running -= w.size
	w.size = 0
	clear(w.batch)
}

// Close refuses whoever waits, waits for what runs, and ends the workers. It may be called twice.
func (s *Scheduler[J]) Close() error {
	s.mu.Lock()
	s.closing = true
	for c := range s.queue {
		for t := s.queue[c].head; t != nil; t = s.queue[c].head {
			s.drop(t, refuse(ReasonClosing, t.class, closingRetry))
		}
	}
	if s.alarm != nil {
		s.alarm.Stop()
	}
	s.wake.Broadcast()
	s.mu.Unlock()
	s.ended.Wait()
	return nil
}
