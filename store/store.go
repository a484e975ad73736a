package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
)

const (
	// mappedBytes is the address space that the file is mapped to. bbolt must wait
	// for all Views to map more, so this is more than a device ever stores; it
	// costs neither memory nor disk.
	mappedBytes = 1 << 30
	// growBytes is how much the file grows at a time.
	growBytes = 256 << 10
)

// Store is an open store. Its methods may be called by many goroutines.
type Store struct {
	path   string
	now    func() time.Time
	log    *slog.Logger
	limits OutboxLimits

	commandLimit uint64

	lock  *os.File
	db    *bbolt.DB
	vault *vault

	writer    chan struct{}          // holds one token; whoever has it may write
	header    atomic.Pointer[header] // as of the last commit
	galleries gallerySet
	changed   chan struct{} // see OutboxChanged

	erasing bool           // freed pages still have to be overwritten; belongs to the writer
	segs    [2]openSegment // keys of the segments that were written last: opening one costs locked pages; belong to the writer

	oldest map[string]oldRecord // by class of the outbox, see Tx.created; belongs to the writer
	shared sharing              // see UpdateShared

	mu      sync.Mutex
	failure error          // why nothing is served any more; nil while open
	readers map[int]int    // open Views by the transaction they see
	views   sync.WaitGroup // open Views
}

// Open opens the store at opts.Path, or makes a new one, checks the structure
// of the file, and decrypts all templates into locked memory. It leaves nothing
// open when it fails.
//
// Errors: ErrLocked when another process holds the store, ErrSchema,
// ErrKeyring, ErrCorrupt (with the record, by RecordError), ErrFull.
func Open(opts Options) (*Store, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Store{
		path: opts.Path, now: opts.Now, log: opts.Logger, limits: opts.Outbox,
		commandLimit: uint64(opts.CommandLimit),
		writer:       make(chan struct{}, 1),
		changed:      make(chan struct{}, 1),
		readers:      make(map[int]int),
		oldest:       make(map[string]oldRecord),
	}
	s.writer <- struct{}{}
	if s.lock, err = takeLock(opts.Path+".lock", opts.LockWait); err != nil {
		return nil, err
	}
	if err := s.open(opts); err != nil {
		return nil, errors.Join(err, s.release())
	}
	return s, nil
}

// open does the steps of Open that come after the lock.
func (s *Store) open(opts Options) error {
	if err := create(s.path, opts.Keyring); err != nil {
		return err
	}
	repair, err := s.verifyPages()
	if err != nil {
		return err
	}
	s.db, err = bbolt.Open(s.path, 0o600, &bbolt.Options{Timeout: boltTimeout, InitialMmapSize: mappedBytes})
	if err != nil {
		return fmt.Errorf("cannot open store %s: %w", s.path, commitFailed(s.path, err))
	}
	s.db.AllocSize = growBytes
	if err := s.load(opts); err != nil {
		return err
	}
	if repair {
		s.log.Warn("one of the two root pages was damaged, most likely by a power cut; rewriting it", "path", s.path)
		return s.Update(context.Background(), func(tx *Tx) error { tx.changed = true; return nil })
	}
	return s.erase()
}

// load reads the meta bucket, the header and all templates.
func (s *Store) load(opts Options) error {
	var btx *bbolt.Tx
	rollback := func(bool) {
		if btx != nil {
			btx.Rollback()
		}
	}
	return guarded(s.path, func() (err error) {
		if btx, err = s.db.Begin(false); err != nil {
			return fmt.Errorf("cannot read store %s: %w", s.path, err)
		}
		defer rollback(false)
		if s.vault, err = openVault(btx, opts.Keyring); err != nil {
			return err
		}
		r := &reader{btx: btx, vault: s.vault}
		defer r.close()
		h, err := r.header()
		if err != nil {
			return err
		}
		s.header.Store(&h)
		s.erasing = r.get(place{bucketMeta, []byte(metaErase)}) != nil
		if err := r.checkEnds(h); err != nil {
			return err
		}
		return s.galleries.rebuild(r, h)
	}, rollback)
}

// Close waits for running Updates and Views, then releases the file, the locks,
// the store key and the galleries. Closing twice is harmless. Galleries that
// callers still hold answer as if they were empty.
func (s *Store) Close() error {
	<-s.writer
	defer func() { s.writer <- struct{}{} }()
	s.mu.Lock()
	if errors.Is(s.failure, ErrClosed) {
		s.mu.Unlock()
		return nil
	}
	failed := s.failure != nil
	s.failure = fmt.Errorf("cannot use store %s: %w", s.path, ErrClosed)
	s.mu.Unlock()
	s.views.Wait()
	if !failed {
		if err := s.erase(); err != nil {
			s.log.Warn("cannot overwrite freed pages, the next start will", "err", err)
		}
	}
	return s.release()
}

// release closes what Open had opened so far.
func (s *Store) release() error {
	errs := []error{s.galleries.close()}
	for i := range s.segs {
		errs = append(errs, s.segs[i].key.Close())
		s.segs[i] = openSegment{}
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	return errors.Join(append(errs, s.vault.close(), s.lock.Close())...)
}

// broken returns why the store serves nothing any more, or nil.
func (s *Store) broken() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// fail makes the store refuse everything from now on.
func (s *Store) fail(cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil {
		s.failure = fmt.Errorf("cannot use store %s (%v); check the disk and start vigild again: %w", s.path, cause, ErrFailed)
		s.log.Error("store has failed", "path", s.path, "cause", cause)
	}
	return s.failure
}
