package sched

import (
	"sync"
	"sync/atomic"
)

// Slot holds what works now, and lets it be exchanged between two jobs: a job sees one value from Enter to Leave, and the
// old value comes back from Swap when nobody works with it any more. Its methods are safe for concurrent use; a worker
// enters once at a time.
type Slot[T any] struct {
	now   atomic.Pointer[held[T]]
	swap  sync.Mutex
	users []sync.Mutex // held by the worker while it is inside
}

type held[T any] struct {
	value      T
	generation uint64
}

// NewSlot is a slot for so many workers that holds a first value, generation 1.
func NewSlot[T any](workers int, first T) *Slot[T] {
	s := &Slot[T]{users: make([]sync.Mutex, workers)}
	s.now.Store(&held[T]{first, 1})
	return s
}

// Enter returns the value of now and its generation for one job of the worker, who calls Leave after it.
func (s *Slot[T]) Enter(worker int) (value T, generation uint64) {
	s.users[worker].Lock()
	h := s.now.Load()
	return h.value, h.generation
}

// Leave ends a job.
func (s *Slot[T]) Leave(worker int) { s.users[worker].Unlock() }

// Load returns the value of now without a right to use what it owns.
func (s *Slot[T]) Load() (value T, generation uint64) {
	h := s.now.Load()
	return h.value, h.generation
}

// Swap makes next the value of every job that begins from now on, waits for those that work with the old one, and returns
// it: the caller may close it.
func (s *Slot[T]) Swap(next T) (old T, generation uint64) {
	s.swap.Lock()
	defer s.swap.Unlock()
	before := s.now.Load()
	generation = before.generation + 1
	s.now.Store(&held[T]{next, generation})
	for i := range s.users {
		s.waitFor(i)
	}
	return before.value, generation
}

// waitFor returns when the worker has left; whoever enters after that sees the new value.
func (s *Slot[T]) waitFor(worker int) {
	s.users[worker].Lock()
	defer s.users[worker].Unlock()
}
