package store

import (
	"bytes"

	"go.etcd.io/bbolt"

	"vigil/secure"
)

// reader reads the records of one bbolt transaction. Transactions and the
// checker share it. It keeps at most one opened segment key per log, and
// belongs to one goroutine.
type reader struct {
	btx   *bbolt.Tx
	vault *vault
	segs  [2]openSegment // by segmentLog.slot
}

// bucket returns a bucket that openVault has seen.
func (r *reader) bucket(name string) *bbolt.Bucket { return r.btx.Bucket([]byte(name)) }

// get returns the stored bytes at p, valid during the transaction, or nil.
func (r *reader) get(p place) []byte { return r.bucket(p.bucket).Get(p.key) }

// header opens the store's header as of this transaction.
func (r *reader) header() (header, error) {
	p := headerPlace()
	plain, err := r.vault.open(p, r.get(p))
	if err != nil {
		return header{}, err
	}
	h, ok := decodeHeader(plain)
	if !ok {
		return header{}, p.damaged(errFormat)
	}
	return h, nil
}

// close zeroes the keys that were opened on the way.
func (r *reader) close() {
	for i := range r.segs {
		r.segs[i].key.Close()
		r.segs[i] = openSegment{}
	}
}

// segmentLog is a numbered log whose records are encrypted under one DEK per
// segment. Numbers start at 1.
type segmentLog struct {
	slot    int
	records string // bucket of the records
	keys    string // bucket of the wrapped DEKs
	purpose secure.Purpose
}

// segmentRecords is how many records share a DEK.
const segmentRecords = 1024

var (
	auditLog  = segmentLog{0, bucketAudit, bucketAuditKeys, secure.Audit}
	outboxLog = segmentLog{1, bucketOutbox, bucketOutboxKeys, secure.Outbox}
)

// openSegment is a segment whose key is open; key is nil for none. It is of use as long as the wrapped key in the file is the
// one that it was opened from.
type openSegment struct {
	number  uint64
	wrapped []byte
	key     *secure.Key
}

// segmentOf returns the segment that record n belongs to.
func segmentOf(n uint64) uint64 { return (n - 1) / segmentRecords }

// record returns the place of record n.
func (l segmentLog) record(n uint64) place { return place{l.records, numberKey(n)} }

// segmentKey opens the DEK of a segment. The key is the reader's and may be
// closed by the next call.
func (r *reader) segmentKey(l segmentLog, segment uint64) (*secure.Key, error) {
	p := place{l.keys, numberKey(segment)}
	wrapped := r.get(p)
	if s := &r.segs[l.slot]; s.key != nil && s.number == segment && bytes.Equal(s.wrapped, wrapped) {
		return s.key, nil
	}
	key, err := r.vault.openDEK(l.purpose, p, wrapped)
	if err != nil {
		return nil, err
	}
	r.keepSegment(l, segment, wrapped, key)
	return key, nil
}

func (r *reader) keepSegment(l segmentLog, segment uint64, wrapped []byte, key *secure.Key) {
	r.segs[l.slot].key.Close()
	r.segs[l.slot] = openSegment{segment, bytes.Clone(wrapped), key}
}

// forgetSegment zeroes the key of a segment, if it is open.
func (r *reader) forgetSegment(l segmentLog, segment uint64) {
	if s := &r.segs[l.slot]; s.number == segment {
		s.key.Close()
		*s = openSegment{}
	}
}

// openRecord decrypts the envelope of record n of a log.
func (r *reader) openRecord(l segmentLog, n uint64, envelope []byte) ([]byte, error) {
	key, err := r.segmentKey(l, segmentOf(n))
	if err != nil {
		return nil, err
	}
	p := l.record(n)
	plain, err := key.Open(envelope, r.vault.aad(p))
	if err != nil {
		return nil, p.damaged(err)
	}
	return plain, nil
}

// firstInSegment returns the number of the first record that a segment holds.
func (r *reader) firstInSegment(l segmentLog, segment uint64) (n uint64, found bool) {
	k, _ := r.bucket(l.records).Cursor().Seek(numberKey(segment*segmentRecords + 1))
	n, ok := parseNumber(k)
	return n, ok && segmentOf(n) == segment
}
