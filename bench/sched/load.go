package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// measureCapacity is how many requests a second the workers answer when each always has one.
func measureCapacity(ctx context.Context, w *work, o options) (perSecond float64, err error) {
	count := func(d time.Duration) (n int, took time.Duration, err error) {
		start := time.Now()
		var wg sync.WaitGroup
		var mu sync.Mutex
		for i := range o.workers {
			wg.Go(func() {
				for time.Since(start) < d {
					e := w.do(ctx, i)
					mu.Lock()
					n, err = n+1, errors.Join(err, e)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		return n, time.Since(start), err
	}
	n, took, err := count(time.Duration(o.calibrate * float64(time.Second)))
	return float64(n) / took.Seconds(), err
}

// trial is one policy under one load. Times are in milliseconds from the arrival that was due.
type trial struct {
	capacity, seconds                     float64
	arrived, good, late, refused, dropped int
	answered, noes                        []float64
}

func (t *trial) goodput() float64   { return float64(t.good) / t.seconds / t.capacity }
func (t *trial) part(n int) float64 { return float64(n) / float64(max(t.arrived, 1)) }

// note counts one request.
func (t *trial) note(took time.Duration, deadline time.Duration, err error) error {
	t.arrived++
	ms := took.Seconds() * 1e3
	switch {
	case err == nil && took <= deadline:
		t.good++
		t.answered = append(t.answered, ms)
	case err == nil:
		t.late++
		t.answered = append(t.answered, ms)
	case errors.Is(err, errRefused):
		t.refused++
		t.noes = append(t.noes, ms)
	case errors.Is(err, errDropped):
		t.dropped++
		t.noes = append(t.noes, ms)
	default:
		return err
	}
	return nil
}

// offer lets requests arrive at a rate, seeded so that every policy gets the same, and waits for their answers. Those of the
// first seconds are not counted.
func offer(ctx context.Context, w *work, o options, p policy, capacity, load float64, seed uint64) (t trial, err error) {
	perSecond := load * capacity
	s, err := p.open(w, o, capacity)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	t.seconds, t.capacity = o.seconds, capacity
	r := rand.New(rand.NewPCG(seed, 9))
	var wg sync.WaitGroup
	var mu sync.Mutex
	start := time.Now()
	for at := 0.0; at < o.warm+o.seconds; at += r.ExpFloat64() / perSecond {
		due := start.Add(time.Duration(at * float64(time.Second)))
		time.Sleep(time.Until(due))
		counts := at >= o.warm
		wg.Go(func() {
			e := s.serve(ctx, due.Add(o.deadline))
			took := time.Since(due)
			mu.Lock()
			defer mu.Unlock()
			if counts {
				err = errors.Join(err, t.note(took, o.deadline, e))
			}
		})
	}
	wg.Wait()
	return t, err
}
