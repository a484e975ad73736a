package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// errReaders says that an open View still sees what is to be overwritten.
var errReaders = errors.New("an older View is still open")

// erase overwrites what deleted keys have left in the file, if there is any.
// bbolt never changes a page in place: a deleted record stays readable in the
// page that held it until that page is used again. The holder of the writer's
// token calls it. A mark in the file, set with the deletion and cleared with
// the overwriting, makes it happen after a crash too.
func (s *Store) erase() error {
	if !s.erasing {
		return nil
	}
	err := s.update(func(tx *Tx) error {
		if err := s.zeroFreed(tx); err != nil {
			return err
		}
		return tx.remove(place{bucketMeta, []byte(metaErase)})
	})
	if err == nil {
		s.erasing = false
	}
	return err
}

// zeroFreed overwrites every page that the state tx started from does not use,
// and the file's unused tail, with zeros. That is safe when no older View is
// open: bbolt itself would hand out any of these pages next. Views that begin
// later see the present state, which uses none of them, and tx has not
// allocated anything yet.
func (s *Store) zeroFreed(tx *Tx) error {
	if s.olderViews(tx.btx.ID() - 1) {
		return errReaders
	}
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("cannot overwrite freed pages: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("cannot overwrite freed pages: %w", err)
	}
	pageBytes := s.db.Info().PageSize
	z := zeroer{f: f, zeros: make([]byte, pageBytes), page: make([]byte, pageBytes)}
	for id := 2; (id+1)*pageBytes <= int(info.Size()); id++ {
		page, err := tx.btx.Page(id)
		if err != nil {
			return fmt.Errorf("cannot list freed pages: %w", err)
		}
		if page != nil && page.Type != "free" {
			continue
		}
		if err := z.clear(int64(id) * int64(pageBytes)); err != nil {
			return fmt.Errorf("cannot overwrite freed page %d: %w", id, err)
		}
	}
	if !z.wrote {
		return nil
	}
	return unix.Fdatasync(int(f.Fd()))
}

// olderViews says whether a View sees a state before the given transaction.
func (s *Store) olderViews(txid int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.readers {
		if id < txid {
			return true
		}
	}
	return false
}

// zeroer overwrites pages that hold something.
type zeroer struct {
	f           *os.File
	zeros, page []byte
	wrote       bool
}

func (z *zeroer) clear(offset int64) error {
	if _, err := z.f.ReadAt(z.page, offset); err != nil {
		return err
	}
	if bytes.Equal(z.page, z.zeros) {
		return nil
	}
	z.wrote = true
	_, err := z.f.WriteAt(z.zeros, offset)
	return err
}
