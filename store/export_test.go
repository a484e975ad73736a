package store

import (
	"encoding/hex"

	"go.etcd.io/bbolt"
)

// Doors for the tests of package store_test.

// SegmentRecords is how many records share a DEK.
const SegmentRecords = segmentRecords

// AllBuckets names the buckets of a store.
func AllBuckets() []string { return allBuckets() }

// CommitOnly is Update without the overwriting that may follow it, so that a
// test can look at the file between the two commits.
func (s *Store) CommitOnly(fn func(tx *Tx) error) error {
	<-s.writer
	defer func() { s.writer <- struct{}{} }()
	return s.update(fn)
}

// Erase is the overwriting that follows an Update.
func (s *Store) Erase() error {
	<-s.writer
	defer func() { s.writer <- struct{}{} }()
	return s.erase()
}

// RawRecord returns what is stored under a hex key.
func (s *Store) RawRecord(bucket, hexKey string) (out []byte) {
	key, _ := hex.DecodeString(hexKey)
	s.db.View(func(btx *bbolt.Tx) error {
		out = append(out, btx.Bucket([]byte(bucket)).Get(key)...)
		return nil
	})
	return out
}

// Generation is the header's.
func (s *Store) Generation() uint64 { return s.header.Load().Generation }

// DirtyRows counts bytes that are not zero behind the gallery's rows.
func (g *Gallery) DirtyRows() (dirty int) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, v := range g.rows[g.n*g.stride:] {
		if v != 0 {
			dirty++
		}
	}
	return dirty
}

// MaxShared is the most functions of one shared transaction.
const MaxShared = maxShared

// SharedWaiting is how many calls of UpdateShared wait for a transaction.
func (s *Store) SharedWaiting() int {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	return len(s.shared.waiting)
}
