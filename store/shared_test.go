package store_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vigil/store"
	"vigil/store/storetest"
)

// blocked holds the writer until the returned function is called, and lets calls pile up meanwhile.
func blocked(t *testing.T, s *store.Store) (free func()) {
	t.Helper()
	inside, leave := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- s.Update(context.Background(), func(*store.Tx) error { close(inside); <-leave; return nil })
	}()
	<-inside
	return func() {
		close(leave)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// waiting waits until so many calls of UpdateShared wait.
func waiting(t *testing.T, s *store.Store, n int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); s.SharedWaiting() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d calls wait, want %d", s.SharedWaiting(), n)
		}
	}
}

func appendEvent(tx *store.Tx, kind string) error {
	_, err := tx.AppendAudit(store.AuditEvent{Type: kind})
	return err
}

func auditTypes(t *testing.T, s *store.Store) map[string]int {
	t.Helper()
	kinds := map[string]int{}
	view(t, s, func(tx *store.Tx) error {
		entries, err := tx.Audit(1, 1024)
		for _, e := range entries {
			kinds[e.Type]++
		}
		return err
	})
	return kinds
}

func TestSharedUpdatesPayForOneCommit(t *testing.T) {
	opts := store.Options{Path: filepath.Join(t.TempDir(), "v.db"), Keyring: storetest.Keyring(t)}
	s := storetest.Open(t, opts)
	free := blocked(t, s)
	before := s.Generation()
	const calls = 2 * store.MaxShared
	var all sync.WaitGroup
	for i := range calls {
		all.Go(func() {
			if err := s.UpdateShared(context.Background(), func(tx *store.Tx) error { return appendEvent(tx, fmt.Sprint("e", i)) }); err != nil {
				t.Error(err)
			}
		})
	}
	waiting(t, s, calls)
	free()
	all.Wait()
	if n := s.Generation() - before; n != 2 {
		t.Errorf("%d calls took %d commits, want 2", calls, n)
	}
	s.Close()
	s = storetest.Open(t, opts) // it is on the disk
	kinds := auditTypes(t, s)
	for i := range calls {
		if kinds[fmt.Sprint("e", i)] != 1 {
			t.Errorf("event %d is there %d times", i, kinds[fmt.Sprint("e", i)])
		}
	}
}

func TestSharedUpdatesFailAlone(t *testing.T) {
	s := storetest.Open(t, store.Options{})
	free := blocked(t, s)
	own := errors.New("mine")
	canceled, cancel := context.WithCancel(context.Background())
	changes := map[string]struct {
		ctx  context.Context
		fn   func(tx *store.Tx) error
		want error
	}{
		"fine":     {context.Background(), func(tx *store.Tx) error { return appendEvent(tx, "fine") }, nil},
		"failing":  {context.Background(), func(tx *store.Tx) error { return errors.Join(appendEvent(tx, "failing"), own) }, own},
		"invalid":  {context.Background(), func(tx *store.Tx) error { return appendEvent(tx, "") }, store.ErrInvalid},
		"canceled": {canceled, func(tx *store.Tx) error { return appendEvent(tx, "canceled") }, context.Canceled},
		"idle":     {context.Background(), func(*store.Tx) error { return nil }, nil},
		"last":     {context.Background(), func(tx *store.Tx) error { return appendEvent(tx, "last") }, nil},
	}
	var all sync.WaitGroup
	for name, c := range changes {
		all.Go(func() {
			if err := s.UpdateShared(c.ctx, c.fn); !errors.Is(err, c.want) {
				t.Errorf("%s: got %v, want %v", name, err, c.want)
			}
		})
	}
	waiting(t, s, len(changes))
	cancel()
	waiting(t, s, len(changes)-1)
	free()
	all.Wait()
	if kinds := auditTypes(t, s); kinds["fine"] != 1 || kinds["last"] != 1 || len(kinds) != 2 {
		t.Errorf("the audit log holds %v", kinds)
	}
}

// TestSharedUpdatesSurviveAPanic: the one that runs the transaction sees the panic, the others an error, and the store works on.
func TestSharedUpdatesSurviveAPanic(t *testing.T) {
	s := storetest.Open(t, store.Options{})
	free := blocked(t, s)
	var panics, errs, fine atomic.Int32
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			defer func() {
				if recover() != nil {
					panics.Add(1)
				}
			}()
			err := s.UpdateShared(context.Background(), func(tx *store.Tx) error {
				if i == 5 {
					panic("mine")
				}
				return appendEvent(tx, "beside")
			})
			if err != nil {
				errs.Add(1)
			} else {
				fine.Add(1)
			}
		})
	}
	waiting(t, s, 8)
	free()
	all.Wait()
	if panics.Load() != 1 || errs.Load() != 7 || fine.Load() != 0 {
		t.Errorf("%d panicked, %d failed, %d were told that all is well", panics.Load(), errs.Load(), fine.Load())
	}
	if kinds := auditTypes(t, s); len(kinds) != 0 {
		t.Errorf("the audit log holds %v", kinds)
	}
	if err := s.UpdateShared(context.Background(), func(tx *store.Tx) error { return appendEvent(tx, "after") }); err != nil {
		t.Error(err)
	}
}

func TestSharedUpdatesAndClose(t *testing.T) {
	s := storetest.Open(t, store.Options{})
	var all sync.WaitGroup
	var kept atomic.Int32
	for range 8 {
		all.Go(func() {
			for {
				err := s.UpdateShared(context.Background(), func(tx *store.Tx) error { return appendEvent(tx, "e") })
				if err == nil {
					kept.Add(1)
					continue
				}
				if !errors.Is(err, store.ErrClosed) {
					t.Error(err)
				}
				return
			}
		})
	}
	for kept.Load() < 20 {
		time.Sleep(time.Millisecond)
	}
	end := make(chan struct{})
	go func() { s.Close(); close(end) }()
	all.Wait()
	<-end
}

// BenchmarkDecisions is what a decision costs the store, with so many at once: an audit event and a record of the outbox.
func BenchmarkDecisions(b *testing.B) {
	for _, callers := range []int{1, 4, 16} {
		for name, shared := range map[string]bool{"own": false, "shared": true} {
			b.Run(fmt.Sprintf("%s-%d", name, callers), func(b *testing.B) {
				s := storetest.Open(b, store.Options{})
				update := s.Update
				if shared {
					update = s.UpdateShared
				}
				var left atomic.Int64
				left.Store(int64(b.N))
				var all sync.WaitGroup
				b.ReportAllocs()
				for range callers {
					all.Go(func() {
						for left.Add(-1) >= 0 {
							if err := update(context.Background(), decision); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				all.Wait()
			})
		}
	}
}

func decision(tx *store.Tx) error {
	if err := appendEvent(tx, "decision"); err != nil {
		return err
	}
	_, err := tx.AppendOutbox("decision", make([]byte, 400))
	return err
}
