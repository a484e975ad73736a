package actuators

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"
)

// recorder is a line that remembers.
type recorder struct {
	mu   sync.Mutex
	sets []bool
	fail bool
}

func (r *recorder) Set(on bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sets = append(r.sets, on)
	if r.fail && on {
		return errors.New("bus error")
	}
	return nil
}

func (r *recorder) seen() []bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.sets)
}

func TestRelayHoldsAndLetsGo(t *testing.T) {
	line, held, freed := &recorder{}, time.Duration(0), 0
	r, err := NewRelay(line, 3*time.Second, func(_ context.Context, d time.Duration) {
		held = d
		if s := line.seen(); !s[len(s)-1] {
			t.Error("it is not on while it is held")
		}
	}, func() error { freed++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Actuate(t.Context(), Grant{}); err != nil {
		t.Fatal(err)
	}
	if held != 3*time.Second || !slices.Equal(line.seen(), []bool{false, true, false}) {
		t.Errorf("held for %v: %v", held, line.seen())
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil || freed != 1 {
		t.Errorf("%v, freed %d times", err, freed)
	}
	if err := r.Actuate(t.Context(), Grant{}); err == nil {
		t.Error("it moves after Close")
	}
}

// TestRelayIsOffAfterClose: in the middle of a hold, by Close or by the context.
func TestRelayIsOffAfterClose(t *testing.T) {
	for _, byContext := range []bool{false, true} {
		line, on := &recorder{}, make(chan struct{})
		r, err := NewRelay(line, time.Hour, func(ctx context.Context, _ time.Duration) { close(on); <-ctx.Done() }, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error)
		go func() { done <- r.Actuate(ctx, Grant{}) }()
		<-on
		if byContext {
			cancel()
		} else if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if s := line.seen(); s[len(s)-1] {
			t.Errorf("the relay stays on: %v", s)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestRelayThatFails(t *testing.T) {
	line := &recorder{fail: true}
	r, err := NewRelay(line, time.Second, func(context.Context, time.Duration) { t.Error("it is held") }, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Actuate(t.Context(), Grant{}); err == nil || line.seen()[2] {
		t.Errorf("%v, %v", err, line.seen())
	}
	if _, err := NewRelay(line, 0, nil, nil); err == nil {
		t.Error("a relay without a hold is taken")
	}
}
