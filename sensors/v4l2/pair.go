package v4l2

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"vigil/sensors"
)

// Pair gives the frames of two sources, a colour and an infra-red camera, that were captured at the same time. It is
// used by one goroutine and owns both sources.
type Pair struct {
	first, second sensors.Source
	within        time.Duration
	unmatched     atomic.Uint64
}

// NewPair pairs two sources; frames match that were captured at most within apart: half a frame's interval is sensible.
// The sources must not be wrapped in sensors.Newest, which would lose the partner of every other frame.
func NewPair(first, second sensors.Source, within time.Duration) (*Pair, error) {
	if within <= 0 {
		return nil, fmt.Errorf("cannot pair cameras within %v: a positive time is needed", within)
	}
	return &Pair{first: first, second: second, within: within}, nil
}

// Next blocks for the next match; the caller releases both. Frames without a partner are released and counted. An error
// of either source is returned, and nothing is held then.
func (p *Pair) Next(ctx context.Context) (a, b *sensors.Frame, err error) {
	defer func() {
		if err != nil {
			release(a)
			release(b)
			a, b = nil, nil
		}
	}()
	for {
		if a == nil {
			if a, err = p.first.Next(ctx); err != nil {
				return a, b, err
			}
		}
		if b == nil {
			if b, err = p.second.Next(ctx); err != nil {
				return a, b, err
			}
		}
		d := a.Captured.Sub(b.Captured)
		switch {
		case d.Abs() <= p.within:
			return a, b, nil
		case d < 0: // the older one has no partner
			release(a)
			a = nil
		default:
			release(b)
			b = nil
		}
		p.unmatched.Add(1)
	}
}

func release(f *sensors.Frame) {
	if f != nil {
		f.Release()
	}
}

// Unmatched is how many frames had no partner. It may be called at any time.
func (p *Pair) Unmatched() uint64 { return p.unmatched.Load() }

// Close closes both sources.
func (p *Pair) Close() error { return errors.Join(p.first.Close(), p.second.Close()) }
