package actuators

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Line is one digital output. Set is true for active, whatever level that is.
type Line interface {
	Set(active bool) error
}

// Relay holds a line active for a while at each grant.
type Relay struct {
	hold time.Duration
	wait func(ctx context.Context, d time.Duration)

	mu     sync.Mutex
	line   Line
	close  func() error
	closed chan struct{}
	once   sync.Once
}

// NewRelay switches line; free is called by Close, nil frees nothing. wait is nil for real time: it returns after d, or when
// the context ends. The line is set inactive at once.
func NewRelay(line Line, hold time.Duration, wait func(context.Context, time.Duration), free func() error) (*Relay, error) {
	if hold <= 0 {
		return nil, fmt.Errorf("a relay must be held for longer than %v", hold)
	}
	if wait == nil {
		wait = Sleep
	}
	if free == nil {
		free = func() error { return nil }
	}
	r := &Relay{hold: hold, wait: wait, line: line, close: free, closed: make(chan struct{})}
	return r, line.Set(false)
}

// Actuate implements Actuator. It returns when the relay is off again; an ended context or Close ends the hold.
func (r *Relay) Actuate(ctx context.Context, _ Grant) error {
	if err := r.set(true); err != nil {
		return errors.Join(err, r.set(false))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.wait(ctx, r.hold)
	}()
	select {
	case <-done:
	case <-r.closed:
		cancel()
		<-done
		return nil // Close has set the line
	}
	return r.set(false)
}

var errClosed = errors.New("the actuator is closed")

func (r *Relay) set(active bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.closed:
		if active {
			return errClosed
		}
		return nil
	default:
		return r.line.Set(active)
	}
}

// Close implements Actuator. It may be called twice.
func (r *Relay) Close() (err error) {
	r.once.Do(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		close(r.closed)
		err = errors.Join(r.line.Set(false), r.close())
	})
	return err
}

// Sleep waits for d, or until the context ends.
func Sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
