package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxPayloadBytes bounds one payload: a broker's usual packet limit.
const maxPayloadBytes = 256 << 10

// AppendOutbox queues a payload of at most 256 KiB for the broker and returns
// its id. class is one of the limits' classes. When a limit is exceeded, the
// oldest record of the lowest class there is goes, which can be this one, and a
// gap marker takes its place; OutboxStats counts it.
//
// Age is measured with the store's clock. Records that were made while the
// clock showed a time before 2024, as it does on a box without a battery until
// it has found a time server, do not age.
//
// Errors: ErrInvalid for an unknown class or an oversized payload.
func (tx *Tx) AppendOutbox(class string, payload []byte) (id uint64, err error) {
	if err := tx.writable(); err != nil {
		return 0, err
	}
	if !slices.Contains(tx.s.limits.Classes, class) {
		return 0, fmt.Errorf("cannot queue record of class %q: it must be one of %s: %w", class, strings.Join(tx.s.limits.Classes, ", "), ErrInvalid)
	}
	if len(payload) > maxPayloadBytes {
		return 0, fmt.Errorf("cannot queue payload of %d bytes, at most %d fit: %w", len(payload), maxPayloadBytes, ErrInvalid)
	}
	id = tx.hdr.OutboxLast + 1
	rec := OutboxRecord{ID: id, Class: class, Created: tx.s.now(), Payload: payload}
	if err := tx.putOutbox(rec); err != nil {
		return 0, err
	}
	if err := tx.put(place{bucketOutboxIndex, indexKey(class, id)}, []byte{1}); err != nil {
		return 0, err
	}
	tx.hdr.OutboxLast = id
	tx.hdr.OutboxRecords++
	tx.outbox = true
	return id, tx.spoil(tx.enforceLimits())
}

// putOutbox writes a record or marker and counts its bytes.
func (tx *Tx) putOutbox(rec OutboxRecord) error {
	sealed, err := tx.sealRecord(outboxLog, rec.ID, rec.encode())
	if err != nil {
		return err
	}
	tx.hdr.OutboxBytes += uint64(len(sealed))
	return tx.put(outboxLog.record(rec.ID), sealed)
}

// OutboxNext returns up to limit (at most 1024) records with ids above after, in
// order of id, which is the order they were appended in. A record that is
// damaged ends the list early; when it is the first, the error names it
// (RecordError), and OutboxDelete removes it. Errors: as for View, ErrCorrupt.
func (s *Store) OutboxNext(after uint64, limit int) ([]OutboxRecord, error) {
	var out []OutboxRecord
	err := s.View(context.Background(), func(tx *Tx) error {
		c := tx.bucket(bucketOutbox).Cursor()
		for k, v := c.Seek(numberKey(after + 1)); k != nil && len(out) < min(limit, maxPage); k, v = c.Next() {
			rec, err := tx.outboxRecord(k, v)
			if err != nil {
				return err
			}
			out = append(out, rec)
		}
		return nil
	})
	if len(out) > 0 {
		return out, nil
	}
	return nil, err
}

// outboxRecord opens the record (k, v) of the outbox.
func (r *reader) outboxRecord(k, v []byte) (OutboxRecord, error) {
	id, ok := parseNumber(k)
	if !ok || id == 0 {
		return OutboxRecord{}, place{bucketOutbox, k}.damaged(errFormat)
	}
	plain, err := r.openRecord(outboxLog, id, v)
	if err != nil {
		return OutboxRecord{}, err
	}
	rec, ok := decodeOutbox(id, plain)
	if !ok {
		return OutboxRecord{}, outboxLog.record(id).damaged(errFormat)
	}
	return rec, nil
}

// OutboxDelete deletes delivered records, all in one transaction; ids that are
// not there any more are skipped. Errors: as for Update.
func (s *Store) OutboxDelete(ids ...uint64) error {
	return s.UpdateShared(context.Background(), func(tx *Tx) error { return tx.DeleteOutbox(ids...) })
}

// DeleteOutbox is OutboxDelete as part of a transaction.
func (tx *Tx) DeleteOutbox(ids ...uint64) error {
	if err := tx.writable(); err != nil {
		return err
	}
	for _, id := range ids {
		if err := tx.spoil(tx.deleteOutbox(id)); err != nil {
			return err
		}
	}
	return nil
}

// deleteOutbox deletes a record, also one that cannot be decrypted: which class
// it is of is then found in the index.
func (tx *Tx) deleteOutbox(id uint64) error {
	sealed := tx.get(outboxLog.record(id))
	if id == 0 || sealed == nil {
		return nil
	}
	if class, found := tx.indexedClass(id); found {
		if err := tx.remove(place{bucketOutboxIndex, indexKey(class, id)}); err != nil {
			return err
		}
		tx.hdr.OutboxRecords--
	} else if err := tx.forgetGap(id); err != nil {
		return err
	}
	return tx.removeOutbox(id, len(sealed))
}

// removeOutbox deletes the record itself, and the key of its segment when it
// was the last one there and no more can come.
func (tx *Tx) removeOutbox(id uint64, sizeBytes int) error {
	tx.hdr.OutboxBytes -= uint64(sizeBytes)
	if err := tx.remove(outboxLog.record(id)); err != nil {
		return err
	}
	segment := segmentOf(id)
	if _, found := tx.firstInSegment(outboxLog, segment); found || segment == segmentOf(tx.hdr.OutboxLast+1) {
		return nil
	}
	tx.forgetSegment(outboxLog, segment)
	return tx.remove(place{bucketOutboxKeys, numberKey(segment)})
}

// OutboxChanged returns a channel that gets a value after records were
// appended. Values coalesce: after one, read with OutboxNext until nothing
// comes. It is one channel for one reader, and is never closed.
func (s *Store) OutboxChanged() <-chan struct{} { return s.changed }

// OutboxStats are the outbox's totals as of the last Update.
type OutboxStats struct {
	Records uint64 `json:"records"`        // gap markers not counted
	Gaps    uint64 `json:"gaps"`           // gap markers that wait
	Bytes   uint64 `json:"bytes"`          // at rest, both together
	Dropped uint64 `json:"dropped"`        // since the store was made
	LastID  uint64 `json:"last_record_id"` // 0 before the first
}

// OutboxStats returns the totals without touching the disk.
func (s *Store) OutboxStats() OutboxStats {
	h := s.header.Load()
	return OutboxStats{h.OutboxRecords, h.OutboxGaps, h.OutboxBytes, h.OutboxDropped, h.OutboxLast}
}

// clockFloor is the earliest time that a clock which has been set can show.
func clockFloor() time.Time { return time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC) }
