package sensors

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
)

// Newest wraps the source of a camera: it drains the source as fast as it delivers and hands out only the newest frame,
// so a slow consumer sees the present, never a backlog. Overwritten frames are released and counted. It owns the source
// and one goroutine; Close ends both.
type Newest struct {
	src     Source
	cancel  context.CancelFunc
	done    chan struct{}
	dropped atomic.Uint64

	mu    sync.Mutex
	item  result
	full  bool
	ended error
	wake  chan struct{} // holds one token while item is full or the source has ended
}

type result struct {
	frame *Frame
	err   error
}

// NewNewest starts draining src.
func NewNewest(src Source) *Newest {
	ctx, cancel := context.WithCancel(context.Background())
	n := &Newest{src: src, cancel: cancel, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	go n.drain(ctx)
	return n
}

// Dropped is the number of frames that were overwritten by newer ones before anybody asked.
func (n *Newest) Dropped() uint64 { return n.dropped.Load() }

// Next implements Source. What the source said last is said again to whoever asks behind the end; os.ErrClosed after Close.
func (n *Newest) Next(ctx context.Context) (*Frame, error) {
	for {
		if r, ok := n.take(); ok {
			return r.frame, r.err
		}
		select {
		case <-n.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (n *Newest) take() (result, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.full {
		r := n.item
		n.item, n.full = result{}, false
		return r, true
	}
	if n.ended != nil {
		n.signal() // whoever asks next must not block either
		return result{err: n.ended}, true
	}
	return result{}, false
}

func (n *Newest) drain(ctx context.Context) {
	defer close(n.done)
	for {
		f, err := n.src.Next(ctx)
		if ctx.Err() != nil { // closed; a source that does not look at the context must not keep this loop alive
			if err == nil {
				f.Release()
			}
			err = os.ErrClosed
		}
		var skipped *SkippedError
		if err != nil && !errors.As(err, &skipped) && !errors.Is(err, ErrUnplugged) {
			n.mu.Lock()
			n.ended = err
			n.signal()
			n.mu.Unlock()
			return
		}
		n.put(result{f, err})
	}
}

func (n *Newest) put(r result) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.full && n.item.frame != nil {
		if r.frame == nil {
			return // the source counted what it skipped; a good frame is worth more than the news
		}
		n.item.frame.Release()
		n.dropped.Add(1)
	}
	n.item, n.full = r, true
	n.signal()
}

func (n *Newest) signal() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Close stops draining, releases the frame at hand and closes the source.
func (n *Newest) Close() error {
	n.cancel()
	err := n.src.Close()
	<-n.done
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.full && n.item.frame != nil {
		n.item.frame.Release()
	}
	n.item, n.full = result{}, false
	return err
}
