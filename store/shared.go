package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// maxShared bounds the functions of one shared transaction.
const maxShared = 64

// errPanicked is what the others get when one function of a shared transaction panics.
var errPanicked = errors.New("cannot commit: another change in the same transaction panicked, nothing of it was kept")

// sharing holds the calls of UpdateShared that wait for a transaction. Its bound is that of the callers: each waits here once.
type sharing struct {
	mu      sync.Mutex
	waiting []*sharedCall
}

type sharedCall struct {
	ctx  context.Context //nolint:containedctx // of the caller, who waits
	fn   func(tx *Tx) error
	done chan error // buffered: the answer
}

// UpdateShared is Update for what many callers do at once: those that wait while a transaction is written to the disk go
// into the next one together, so that they pay for its two syncs once. Each keeps all of what it did, or nothing, and has
// its own error; a commit that fails, fails for all of them.
//
// fn may be called more than once, in a new transaction each time, and by another goroutine; only its last call counts. It
// must do the same each time, must not call Update, UpdateShared, View or Close, and when it returns an error the functions
// beside it are called again.
//
// Errors: as for Update.
func (s *Store) UpdateShared(ctx context.Context, fn func(tx *Tx) error) error {
	c := &sharedCall{ctx: ctx, fn: fn, done: make(chan error, 1)}
	s.shared.add(c)
	for {
		select {
		case err := <-c.done:
			return err
		case <-s.writer:
			s.lead()
		case <-ctx.Done():
			if s.shared.remove(c) {
				return fmt.Errorf("cannot begin transaction: %w", ctx.Err())
			}
			return <-c.done // it is being written
		}
	}
}

// lead writes what waits, and gives the writer's token back.
func (s *Store) lead() {
	defer func() { s.writer <- struct{}{} }()
	calls := s.shared.take()
	defer func() { answer(calls, errPanicked) }() // who has an answer already keeps it
	for len(calls) > 0 {
		if err := s.broken(); err != nil {
			answer(calls, fmt.Errorf("cannot begin transaction: %w", err))
			return
		}
		failed := -1
		err := s.write(func(tx *Tx) (err error) {
			failed, err = runAll(tx, calls)
			return err
		})
		if failed < 0 {
			answer(calls, err)
			return
		}
		answer(calls[failed:failed+1], err)
		calls = slices.Delete(calls, failed, failed+1)
	}
}

// runAll calls the functions; failed is which of them returned an error or spoiled the transaction, -1 if none.
func runAll(tx *Tx, calls []*sharedCall) (failed int, err error) {
	for i, c := range calls {
		if err := c.ctx.Err(); err != nil {
			return i, fmt.Errorf("cannot begin transaction: %w", err)
		}
		if err := c.fn(tx); err != nil {
			return i, err
		}
		if tx.spoiled != nil {
			return i, tx.spoiled
		}
	}
	return -1, nil
}

func answer(calls []*sharedCall, err error) {
	for _, c := range calls {
		select {
		case c.done <- err:
		default:
		}
	}
}

func (w *sharing) add(c *sharedCall) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = append(w.waiting, c)
}

// remove reports whether the call still waited.
func (w *sharing) remove(c *sharedCall) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.waiting)
	w.waiting = slices.DeleteFunc(w.waiting, func(x *sharedCall) bool { return x == c })
	return len(w.waiting) < n
}

// take removes the calls of the next transaction, those that wait longest.
func (w *sharing) take() []*sharedCall {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(w.waiting), maxShared)
	calls := slices.Clone(w.waiting[:n])
	w.waiting = slices.Delete(w.waiting, 0, n)
	return calls
}
