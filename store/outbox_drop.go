package store

import (
	"bytes"
	"slices"
	"time"
)

// enforceLimits drops records until the outbox is within its limits.
func (tx *Tx) enforceLimits() error {
	classes := tx.dropOrder()
	for _, class := range classes {
		if err := tx.dropAged(class); err != nil {
			return err
		}
	}
	limits := tx.s.limits
	for _, class := range classes {
		for tx.hdr.OutboxRecords > uint64(limits.MaxRecords) || tx.hdr.OutboxBytes > uint64(limits.MaxBytes) {
			id, found := tx.oldest(class)
			if !found {
				break
			}
			if err := tx.dropRecord(class, id, GapFull); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropOrder returns the classes there are, lowest first. One that is in the file
// but no longer among the limits' comes before all others.
func (tx *Tx) dropOrder() []string {
	var out []string
	c := tx.bucket(bucketOutboxIndex).Cursor()
	for k, _ := c.First(); k != nil; {
		class, _, ok := bytes.Cut(k, []byte{0})
		if !ok {
			break // Check reports it
		}
		out = append(out, string(class))
		k, _ = c.Seek(append(bytes.Clone(class), 1)) // behind all records of the class
	}
	rank := func(class string) int { return slices.Index(tx.s.limits.Classes, class) }
	slices.SortStableFunc(out, func(a, b string) int { return rank(a) - rank(b) })
	return out
}

// oldest returns the first record of a class.
func (tx *Tx) oldest(class string) (id uint64, found bool) {
	prefix := classPrefix(class)
	k, _ := tx.bucket(bucketOutboxIndex).Cursor().Seek(prefix)
	if !bytes.HasPrefix(k, prefix) {
		return 0, false
	}
	return parseNumber(k[len(prefix):])
}

// dropAged drops the records of a class that are older than MaxAge.
func (tx *Tx) dropAged(class string) error {
	limit := tx.s.now().Add(-tx.s.limits.MaxAge)
	for {
		id, found := tx.oldest(class)
		if !found {
			return nil
		}
		created, err := tx.created(class, id)
		if err != nil || !aged(created, limit) {
			return nil //nolint:nilerr // OutboxNext reports a damaged record
		}
		if err := tx.dropRecord(class, id, GapAge); err != nil {
			return err
		}
	}
}

// created returns when a record was appended. That of the oldest record of a class is remembered, because every AppendOutbox
// asks for it, and the record may lie in a segment whose key is not open.
func (tx *Tx) created(class string, id uint64) (time.Time, error) {
	if o := tx.s.oldest[class]; o.id == id {
		return o.created, nil
	}
	key := numberKey(id)
	rec, err := tx.outboxRecord(key, tx.bucket(bucketOutbox).Get(key))
	if err == nil && id <= tx.s.header.Load().OutboxLast { // else a rollback may give the number to another
		tx.s.oldest[class] = oldRecord{id, rec.Created}
	}
	return rec.Created, err
}

// oldRecord is a committed record of the outbox, the oldest of its class.
type oldRecord struct {
	id      uint64
	created time.Time
}

// aged says whether a record of this time is too old; see AppendOutbox.
func aged(created, limit time.Time) bool {
	return created.Before(limit) && !created.Before(clockFloor())
}

// dropRecord replaces a record by a gap marker, which takes over from the
// marker of the same class and reason that waits already.
func (tx *Tx) dropRecord(class string, id uint64, reason string) error {
	gap := Gap{Count: 1, From: id, To: id, Reason: reason}
	at := place{bucketOutboxGaps, gapKey(class, reason)}
	if old, found := parseNumber(tx.get(at)); found {
		k := numberKey(old)
		sealed := tx.bucket(bucketOutbox).Get(k)
		if rec, err := tx.outboxRecord(k, sealed); err == nil && rec.Gap != nil {
			gap.Count, gap.From = rec.Gap.Count+1, min(rec.Gap.From, id)
			gap.To = max(rec.Gap.To, id)
		}
		if err := tx.deleteOutbox(old); err != nil {
			return err
		}
	}
	if err := tx.deleteOutbox(id); err != nil {
		return err
	}
	tx.hdr.OutboxDropped++
	tx.hdr.OutboxGaps++
	if err := tx.put(at, numberKey(id)); err != nil {
		return err
	}
	return tx.putOutbox(OutboxRecord{ID: id, Class: class, Created: tx.s.now(), Gap: &gap})
}

// indexedClass finds the class of a record without decrypting it. ok is false
// for a gap marker.
func (tx *Tx) indexedClass(id uint64) (class string, ok bool) {
	index := tx.bucket(bucketOutboxIndex)
	for _, class := range tx.dropOrder() {
		if index.Get(indexKey(class, id)) != nil {
			return class, true
		}
	}
	return "", false
}

// forgetGap removes the note of a gap marker that is deleted.
func (tx *Tx) forgetGap(id uint64) error {
	c := tx.bucket(bucketOutboxGaps).Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if n, ok := parseNumber(v); ok && n == id {
			tx.hdr.OutboxGaps--
			return tx.remove(place{bucketOutboxGaps, bytes.Clone(k)})
		}
	}
	return nil
}
