// Package fault makes a source go wrong by a script, to prove that what stands behind it bears it: frames that are lost,
// late, corrupt or cut, a device that is unplugged and comes back, a driver that fails.
//
// Promises: the same source, script and seed give the same faults, byte for byte. A corrupt frame is the wrapped source's own
// memory with other bytes: so the source must be the only holder, as a driver is. An unplugged source gives ErrUnplugged
// once; the Next after it blocks for the script's time, or until the context ends or the source is closed, and goes on with
// the next frame. Nothing is buffered: a fault costs no memory.
//
// Next blocks on the wrapped source and on the script's times. It owns the wrapped source, and closes it. It is for tests
// and for trials in the field; nothing in here runs unless a script is given.
package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"vigil/sensors"
)

// ErrInjected is the error that a script makes of a driver.
var ErrInjected = errors.New("fault injected by the script")

// Options of a Source.
type Options struct {
	Script Script
	Seed   uint64
	// Wait sleeps for Stall and Unplug, until the context ends; nil is the clock.
	Wait func(ctx context.Context, d time.Duration) error
}

// Stats counts the faults that happened.
type Stats struct {
	Frames, Dropped, Stalled, Corrupted, Unplugged, Failed uint64
}

// Source is a source with faults. It implements sensors.Source.
type Source struct {
	src    sensors.Source
	opts   Options
	random *rand.Rand
	closed context.Context
	close  context.CancelFunc
	once   sync.Once

	n    uint64        // frames taken from src
	away time.Duration // the device is unplugged for this long

	frames, dropped, stalled, corrupted, unplugged, failed atomic.Uint64
}

// New wraps src, which it owns from now on.
func New(src sensors.Source, o Options) *Source {
	if o.Wait == nil {
		o.Wait = sleep
	}
	s := &Source{src: src, opts: o, random: rand.New(rand.NewPCG(o.Seed, 0x6661756c74))}
	s.closed, s.close = context.WithCancel(context.Background())
	return s
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stats returns the counts so far.
func (s *Source) Stats() Stats {
	return Stats{
		Frames: s.frames.Load(), Dropped: s.dropped.Load(), Stalled: s.stalled.Load(), Corrupted: s.corrupted.Load(),
		Unplugged: s.unplugged.Load(), Failed: s.failed.Load(),
	}
}

// Next implements sensors.Source.
func (s *Source) Next(ctx context.Context) (*sensors.Frame, error) {
	if s.closed.Err() != nil {
		return nil, os.ErrClosed
	}
	if s.away > 0 {
		if err := s.wait(ctx, s.away); err != nil {
			return nil, err
		}
		s.away = 0
	}
	for {
		f, err := s.src.Next(ctx)
		if err != nil {
			return nil, err
		}
		s.n++
		lost, err := s.apply(ctx, f)
		if err != nil || lost {
			f.Release()
		}
		if err != nil {
			return nil, err
		}
		if !lost {
			s.frames.Add(1)
			return f, nil
		}
	}
}

// apply does to a frame what the script says.
func (s *Source) apply(ctx context.Context, f *sensors.Frame) (lost bool, err error) {
	for i := range s.opts.Script {
		step := &s.opts.Script[i]
		if !step.meets(s.n) || step.Chance > 0 && s.random.Float64() >= step.Chance {
			continue
		}
		switch step.Kind {
		case Drop:
			s.dropped.Add(1)
			return true, nil
		case Stall:
			s.stalled.Add(1)
			if err := s.wait(ctx, step.For); err != nil {
				return false, err
			}
		case Corrupt:
			s.corrupted.Add(1)
			s.corrupt(f, step.Bytes)
		case Cut:
			s.corrupted.Add(1)
			p := &f.Planes[0]
			p.Data = p.Data[:max(0, len(p.Data)-step.Bytes)]
		case Unplug:
			s.unplugged.Add(1)
			s.away = step.For
			return false, sensors.ErrUnplugged
		case Fail:
			s.failed.Add(1)
			return false, fmt.Errorf("frame %d: %w", s.n, ErrInjected)
		}
	}
	return false, nil
}

// corrupt changes n bytes, each to another value.
func (s *Source) corrupt(f *sensors.Frame, n int) {
	total := len(f.Planes[0].Data) + len(f.Planes[1].Data)
	if total == 0 {
		return
	}
	for range n {
		i, data := s.random.IntN(total), f.Planes[0].Data
		if i >= len(data) {
			i, data = i-len(data), f.Planes[1].Data
		}
		data[i] ^= byte(1 + s.random.IntN(255))
	}
}

// wait sleeps until the time is over, the context ends or the source is closed.
func (s *Source) wait(ctx context.Context, d time.Duration) error {
	both, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(s.closed, cancel)
	defer stop()
	err := s.opts.Wait(both, d)
	if s.closed.Err() != nil {
		return os.ErrClosed
	}
	return err
}

// Close ends a wait and closes the wrapped source.
func (s *Source) Close() (err error) {
	s.once.Do(func() {
		s.close()
		err = s.src.Close()
	})
	return err
}
