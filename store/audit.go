package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"
)

// maxAuditBytes bounds one encoded event.
const maxAuditBytes = 64 << 10

// AuditEvent is something that must be provable later.
type AuditEvent struct {
	Time    time.Time      `json:"time"` // zero: AppendAudit takes the store's clock
	Type    string         `json:"type"` // what happened, such as "decision"
	Subject string         `json:"subject,omitempty"`
	Detail  map[string]any `json:"detail,omitempty"` // must be encodable as JSON
}

// AuditEntry is an event with its place in the log.
type AuditEntry struct {
	Seq uint64 `json:"seq"` // from 1, without holes
	AuditEvent
}

// genesis is the chain hash before the first event of a store.
func genesis(storeID string) [sha256.Size]byte {
	return sha256.Sum256([]byte("vigil/1 audit genesis " + storeID))
}

// link is the chain hash of an event: SHA-256 over a label, the hash of the
// event before it, its sequence number and its envelope.
func link(prev [sha256.Size]byte, seq uint64, envelope []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write([]byte("vigil/1 audit link"))
	h.Write(prev[:])
	h.Write(binary.BigEndian.AppendUint64(nil, seq))
	h.Write(envelope)
	h.Sum(sum[:0])
	return sum
}

// AppendAudit appends an event to the audit log and returns its sequence
// number. Errors: ErrInvalid when the event has no type, cannot be encoded or
// is longer than 64 KiB.
func (tx *Tx) AppendAudit(event AuditEvent) (seq uint64, err error) {
	if err := tx.writable(); err != nil {
		return 0, err
	}
	if event.Time.IsZero() {
		event.Time = tx.s.now()
	}
	event.Time = event.Time.UTC()
	plain, err := json.Marshal(event)
	switch {
	case err != nil:
		return 0, fmt.Errorf("cannot encode audit event %q: %v: %w", event.Type, err, ErrInvalid)
	case event.Type == "" || len(plain) > maxAuditBytes:
		return 0, fmt.Errorf("cannot append audit event %q of %d bytes: it needs a type and at most %d bytes: %w", event.Type, len(plain), maxAuditBytes, ErrInvalid)
	}
	seq = tx.hdr.AuditSeq + 1
	sealed, err := tx.sealRecord(auditLog, seq, plain)
	if err != nil {
		return 0, err
	}
	hash := link(tx.hdr.AuditHash, seq, sealed)
	if err := tx.put(auditLog.record(seq), append(hash[:], sealed...)); err != nil {
		return 0, err
	}
	tx.hdr.AuditSeq, tx.hdr.AuditHash = seq, hash
	return seq, nil
}

// Audit returns up to limit (at most 1024) events from sequence number from on,
// oldest first, having checked that each follows from the one before it.
// Errors: ErrCorrupt.
func (tx *Tx) Audit(from uint64, limit int) ([]AuditEntry, error) {
	if err := tx.usable(); err != nil {
		return nil, err
	}
	from = max(from, 1)
	prev, err := tx.auditHash(from - 1)
	if err != nil {
		return nil, err
	}
	var out []AuditEntry
	c := tx.bucket(bucketAudit).Cursor()
	seq := from
	for k, v := c.Seek(numberKey(from)); k != nil && len(out) < min(limit, maxPage); k, v = c.Next() {
		entry, hash, err := tx.auditEntry(seq, k, v, prev)
		if err != nil {
			return nil, err
		}
		out = append(out, entry)
		prev, seq = hash, seq+1
	}
	return out, nil
}

// auditHash returns the stored chain hash of an event, or the genesis for 0. An
// event that is not there gives zeros, after which nothing follows.
func (r *reader) auditHash(seq uint64) (hash [sha256.Size]byte, err error) {
	if seq == 0 {
		return genesis(r.vault.id), nil
	}
	raw := r.get(auditLog.record(seq))
	if raw != nil && len(raw) < sha256.Size {
		return hash, auditLog.record(seq).damaged(errFormat)
	}
	copy(hash[:], raw)
	return hash, nil
}

// auditEntry opens the record (k, v), which must be event seq and follow prev.
func (r *reader) auditEntry(seq uint64, k, v []byte, prev [sha256.Size]byte) (entry AuditEntry, hash [sha256.Size]byte, err error) {
	p := auditLog.record(seq)
	switch {
	case !bytes.Equal(k, p.key):
		return entry, hash, p.damaged(errMissing)
	case len(v) < sha256.Size:
		return entry, hash, p.damaged(errFormat)
	}
	hash = link(prev, seq, v[sha256.Size:])
	if !bytes.Equal(hash[:], v[:sha256.Size]) {
		return entry, hash, p.damaged(errChain)
	}
	plain, err := r.openRecord(auditLog, seq, v[sha256.Size:])
	if err != nil {
		return entry, hash, err
	}
	event, ok := decodeAudit(plain)
	if !ok {
		return entry, hash, p.damaged(errFormat)
	}
	return AuditEntry{seq, event}, hash, nil
}

func decodeAudit(plain []byte) (event AuditEvent, ok bool) {
	err := json.Unmarshal(plain, &event)
	return event, err == nil && event.Type != ""
}

// AuditEnd is the sequence number of the last durable audit event, 0 for none.
func (s *Store) AuditEnd() uint64 { return s.header.Load().AuditSeq }
