package infer

import "context"

// Stopper lets the end of a context stop the run of an engine, by a flag that the engine looks at. It follows the latest context
// until another comes, so that a sensor's frames, which share one, cost nothing each. It serves one run at a time; the zero
// value with its functions set is ready.
type Stopper struct {
	Set   func()       // sets the flag; called from any goroutine
	Clear func() error // takes it back

	ctx   context.Context // followed; nil if none is
	stop  func() bool     // ends that; false if Set was called or is about to be
	fired chan struct{}   // closed when it was
}

// Follow makes the next run end when the context does. Errors: Clear's.
func (s *Stopper) Follow(ctx context.Context) error {
	if s.ctx == ctx {
		return nil
	}
	if err := s.Forget(); err != nil {
		return err
	}
	if ctx.Done() == nil {
		return nil
	}
	fired, set := make(chan struct{}), s.Set
	s.ctx, s.fired = ctx, fired
	s.stop = context.AfterFunc(ctx, func() {
		defer close(fired)
		set()
	})
	return nil
}

// Forget follows no context any more; when it returns, Set is not called, and is taken back if it was. Errors: Clear's.
func (s *Stopper) Forget() error {
	if s.ctx == nil {
		return nil
	}
	set := !s.stop()
	if set {
		<-s.fired
	}
	s.ctx, s.stop, s.fired = nil, nil, nil
	if set {
		return s.Clear()
	}
	return nil
}
