package store

import (
	"fmt"

	"go.etcd.io/bbolt"
)

// Tx is one transaction, given to the function of Update or View. It belongs to
// that function's goroutine and is of no use after the function has returned.
//
// A method that fails after it began to change something spoils the
// transaction: Update then keeps nothing, whatever the function returns.
type Tx struct {
	*reader
	s       *Store
	hdr     header
	writer  bool
	changed bool
	spoiled error

	galleries galleryPlan
	outbox    bool // something was appended
	erase     bool // a key was deleted
}

// newTx begins the bookkeeping of a transaction.
func newTx(s *Store, btx *bbolt.Tx) *Tx {
	tx := &Tx{reader: &reader{btx: btx, vault: s.vault}, s: s}
	tx.galleries.set = &s.galleries
	if tx.writer = btx.Writable(); tx.writer {
		tx.hdr = *s.header.Load()
		tx.segs, s.segs = s.segs, [2]openSegment{}
	}
	return tx
}

// end makes the transaction useless. The writer's segment keys stay open for
// the next one, a View's are zeroed.
func (tx *Tx) end() {
	if tx.btx != nil && tx.writer {
		tx.s.segs, tx.segs = tx.segs, [2]openSegment{}
	}
	tx.reader.close()
	tx.btx = nil
}

// usable says whether a method may read.
func (tx *Tx) usable() error {
	if tx.btx == nil {
		return fmt.Errorf("cannot use transaction outside its function: %w", ErrClosed)
	}
	return nil
}

// writable says whether a method may change something.
func (tx *Tx) writable() error {
	if err := tx.usable(); err != nil {
		return err
	}
	if tx.spoiled != nil {
		return tx.spoiled
	}
	if !tx.btx.Writable() {
		return fmt.Errorf("cannot change the store inside View: %w", ErrReadOnly)
	}
	return nil
}

// spoil remembers that the transaction must not be kept.
func (tx *Tx) spoil(err error) error {
	if err != nil && tx.spoiled == nil {
		tx.spoiled = err
	}
	return err
}

// put writes one record.
func (tx *Tx) put(p place, value []byte) error {
	tx.changed = true
	if err := tx.bucket(p.bucket).Put(p.key, value); err != nil {
		return tx.spoil(fmt.Errorf("cannot write record %s/%s: %w", p.bucket, printableKey(p.bucket, p.key), err))
	}
	return nil
}

// remove deletes one record, which may be absent.
func (tx *Tx) remove(p place) error {
	tx.changed = true
	if err := tx.bucket(p.bucket).Delete(p.key); err != nil {
		return tx.spoil(fmt.Errorf("cannot delete record %s/%s: %w", p.bucket, printableKey(p.bucket, p.key), err))
	}
	return nil
}

// putHeader seals the totals; the last step before the commit.
func (tx *Tx) putHeader() error {
	tx.hdr.Generation++
	sealed, err := tx.vault.seal(headerPlace(), tx.hdr.encode())
	if err != nil {
		return err
	}
	return tx.put(headerPlace(), sealed)
}

// sealRecord encrypts record n of a log, making its segment's key when the
// segment has none yet.
func (tx *Tx) sealRecord(l segmentLog, n uint64, plain []byte) ([]byte, error) {
	segment := segmentOf(n)
	if err := tx.ensureSegment(l, segment); err != nil {
		return nil, tx.spoil(err)
	}
	key, err := tx.segmentKey(l, segment)
	if err != nil {
		return nil, tx.spoil(err)
	}
	sealed, err := key.Seal(plain, tx.vault.aad(l.record(n)))
	return sealed, tx.spoil(err)
}

// ensureSegment makes the DEK of an empty segment. It never replaces the lost
// key of one that holds records.
func (tx *Tx) ensureSegment(l segmentLog, segment uint64) error {
	p := place{l.keys, numberKey(segment)}
	if tx.get(p) != nil {
		return nil
	}
	if _, found := tx.firstInSegment(l, segment); found {
		return p.damaged(errMissing)
	}
	key, wrapped, err := tx.vault.keyring.NewDEK(l.purpose, tx.vault.aad(p))
	if err != nil {
		return fmt.Errorf("cannot make a key for segment %d of %s: %w", segment, l.records, err)
	}
	tx.keepSegment(l, segment, wrapped, key)
	return tx.put(p, wrapped)
}
