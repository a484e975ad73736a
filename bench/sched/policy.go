package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"vigil/infer/sched"
)

// Why a request was not answered.
var (
	errRefused = errors.New("refused at arrival")
	errDropped = errors.New("dropped after it waited")
)

// server is a policy at work.
type server interface {
	// serve blocks until the request is answered (nil), refused (errRefused, errDropped) or failed.
	serve(ctx context.Context, deadline time.Time) error
	close() error
}

// policy makes servers.
type policy struct {
	name string
	open func(w *work, o options, perSecond float64) (server, error)
}

// policies; perSecond is the capacity, which only the tuned one knows.
var policies = []policy{
	{"vigil", openOurs},
	{"timeout = deadline", func(w *work, o options, _ float64) (server, error) { return openTimeout(w, o.workers, o.deadline, 0) }},
	{"timeout, tuned", func(w *work, o options, perSecond float64) (server, error) {
		return openTimeout(w, o.workers, o.deadline/2, max(1, int(perSecond*o.deadline.Seconds()/2)))
	}},
}

// ours is the scheduler with one worker for each pipeline.
type ours struct {
	s *sched.Scheduler[struct{}]
}

// workExecutor runs the work.
type workExecutor struct{ w *work }

// Run implements sched.Executor.
func (e workExecutor) Run(worker int, _ []struct{}) error {
	return e.w.do(context.Background(), worker)
}

func openOurs(w *work, o options, _ float64) (server, error) {
	const waiting = 1024 // never the bound here: deadlines refuse before
	s, err := sched.New[struct{}](workExecutor{w}, sched.Options{Name: "bench", Workers: o.workers, Places: [sched.Classes]int{waiting, waiting, waiting}})
	return ours{s}, err
}

func (s ours) serve(ctx context.Context, deadline time.Time) error {
	err := s.s.Do(ctx, sched.API, deadline, struct{}{})
	var r *sched.Refusal
	if !errors.As(err, &r) {
		return err
	}
	if r.Reason == sched.ReasonExpired {
		return errDropped
	}
	return errRefused
}

func (s ours) close() error { return s.s.Close() }

// timeout is a queue as Triton's dynamic batcher has it.
type timeout struct {
	queue chan *waiting
	after time.Duration
	ended sync.WaitGroup
}

type waiting struct {
	since time.Time
	done  chan error
}

// unbounded stands for max_queue_size 0, which is no bound: more than any run here makes wait.
const unbounded = 1 << 20

func openTimeout(w *work, workers int, after time.Duration, size int) (server, error) {
	if size == 0 {
		size = unbounded
	}
	s := &timeout{queue: make(chan *waiting, size), after: after}
	for i := range workers {
		s.ended.Go(func() {
			for r := range s.queue {
				if time.Since(r.since) > s.after {
					r.done <- errDropped
					continue
				}
				r.done <- w.do(context.Background(), i)
			}
		})
	}
	return s, nil
}

func (s *timeout) serve(context.Context, time.Time) error {
	r := &waiting{since: time.Now(), done: make(chan error, 1)}
	select {
	case s.queue <- r:
		return <-r.done
	default:
		return errRefused
	}
}

func (s *timeout) close() error {
	close(s.queue)
	s.ended.Wait()
	return nil
}
