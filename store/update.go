package store

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
)

// Update runs fn in a transaction and keeps all of what it did, or nothing. When
// it returns nil, everything is on the disk and visible in the galleries. When
// fn returns an error, that error comes back and nothing is kept; when fn
// changed nothing, nothing is written.
//
// It waits for the Update before it, or until ctx is done; once fn has returned
// it no longer looks at ctx. fn must not call Update, View or Close.
//
// Errors beside fn's own: ErrFull, ErrFailed, ErrCorrupt, ErrClosed, and the
// context's.
func (s *Store) Update(ctx context.Context, fn func(tx *Tx) error) error {
	select {
	case <-s.writer:
	case <-ctx.Done():
		return fmt.Errorf("cannot begin transaction: %w", ctx.Err())
	}
	defer func() { s.writer <- struct{}{} }()
	if err := errors.Join(s.broken(), ctx.Err()); err != nil {
		return fmt.Errorf("cannot begin transaction: %w", err)
	}
	return s.write(fn)
}

// write is Update for the holder of the writer's token, who knows that the
// store is not broken.
func (s *Store) write(fn func(tx *Tx) error) error {
	if err := s.update(fn); err != nil {
		return err
	}
	// What was asked for is durable; erasing what is left of deleted keys is
	// tried again by the next Update, Close or Open.
	if err := s.erase(); err != nil {
		s.log.Warn("cannot overwrite freed pages yet", "err", err)
	}
	return nil
}

// update is write without the erasing.
func (s *Store) update(fn func(tx *Tx) error) error {
	var btx *bbolt.Tx
	var tx *Tx
	undo := func() {
		if tx != nil {
			tx.galleries.discard()
			tx.end()
		}
		s.rollback(btx)
	}
	kept := false
	err := guarded(s.path, func() (err error) {
		if btx, err = s.db.Begin(true); err != nil {
			return fmt.Errorf("cannot begin transaction: %w", err)
		}
		tx = newTx(s, btx)
		if err := tx.run(fn); err != nil || !tx.changed {
			undo()
			return err
		}
		if err := btx.Commit(); err != nil {
			undo()
			return s.afterFailedCommit(btx, tx, err)
		}
		kept = true
		return nil
	}, func(inBolt bool) {
		undo()
		if inBolt {
			s.fail(errPages)
		}
	})
	if kept {
		s.publish(tx)
	}
	return err
}

// run calls fn and prepares the commit.
func (tx *Tx) run(fn func(tx *Tx) error) error {
	if err := fn(tx); err != nil {
		return err
	}
	if tx.spoiled != nil {
		return tx.spoiled
	}
	if !tx.changed {
		return nil
	}
	return tx.putHeader()
}

// publish makes a committed transaction visible. It cannot fail: room in the
// galleries was taken before the commit.
func (s *Store) publish(tx *Tx) {
	h := tx.hdr
	s.header.Store(&h)
	s.erasing = s.erasing || tx.erase
	tx.galleries.apply()
	tx.end()
	if tx.outbox {
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}
}

// rollback ends a bbolt transaction that may have ended before, or be damaged.
func (s *Store) rollback(btx *bbolt.Tx) {
	if btx == nil {
		return
	}
	defer func() {
		if r := recover(); r != nil {
			s.fail(fmt.Errorf("cannot roll back: %v", r))
		}
	}()
	btx.Rollback()
}

// afterFailedCommit finds out whether the file still shows the state before the
// transaction. A disk that is full refuses pages that nothing refers to yet, and
// work goes on. Whatever else failed may have reached the root page.
func (s *Store) afterFailedCommit(btx *bbolt.Tx, tx *Tx, cause error) error {
	seen, err := s.generation()
	if err == nil && isFull(cause) && seen == s.header.Load().Generation {
		return commitFailed(s.path, cause)
	}
	return s.fail(fmt.Errorf("cannot commit: %v", cause))
}

// generation reads the header's generation as readers see it now.
func (s *Store) generation() (n uint64, err error) {
	err = s.db.View(func(btx *bbolt.Tx) error {
		r := &reader{btx: btx, vault: s.vault}
		h, err := r.header()
		n = h.Generation
		return err
	})
	return n, err
}

// View runs fn in a read-only transaction that sees one state of the store,
// whatever is updated meanwhile, and returns fn's error. fn must be short (see
// the package comment) and must not call Update, View or Close.
//
// Errors beside fn's own: ErrCorrupt, ErrFailed, ErrClosed, and the context's.
func (s *Store) View(ctx context.Context, fn func(tx *Tx) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("cannot begin transaction: %w", err)
	}
	var btx *bbolt.Tx
	end := func() { s.endView(btx) }
	return guarded(s.path, func() (err error) {
		if btx, err = s.beginView(); err != nil {
			return err
		}
		defer end()
		tx := newTx(s, btx)
		defer tx.end()
		return fn(tx)
	}, func(bool) {})
}

// beginView opens a read transaction and notes which state it sees, so that
// zeroFreed knows whom it would disturb.
func (s *Store) beginView() (*bbolt.Tx, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		return nil, s.failure
	}
	btx, err := s.db.Begin(false)
	if err != nil {
		return nil, fmt.Errorf("cannot begin transaction: %w", err)
	}
	s.readers[btx.ID()]++
	s.views.Add(1)
	return btx, nil
}

func (s *Store) endView(btx *bbolt.Tx) {
	if btx == nil {
		return
	}
	id := btx.ID()
	btx.Rollback()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readers[id]--; s.readers[id] == 0 {
		delete(s.readers, id)
	}
	s.views.Done()
}
