package store

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"strings"
)

// Causes that only reports have.
var (
	errOrphan  = errors.New("what it belongs to is not there")
	errUnknown = errors.New("this version does not know such a record")
)

// audit follows the chain from the genesis to the sealed head.
func (c *contentCheck) audit() {
	prev := genesis(c.vault.id)
	next := uint64(1)
	c.each(bucketAudit, func(p place, v []byte) {
		c.report.Audit++
		seq, ok := parseNumber(p.key)
		if !ok {
			c.report.record(p, errUnknown, remedyAudit)
			return
		}
		if seq != next {
			c.report.record(auditLog.record(next), fmt.Errorf("%w; the log goes on at %d", errMissing, seq), remedyAudit)
		}
		if _, _, err := c.auditEntry(seq, p.key, v, prev); err != nil {
			c.report.record(p, cause(err), remedyAudit)
		}
		// What follows is compared with the hash that stands here, so that one
		// altered event is one problem.
		prev = [sha256.Size]byte{}
		copy(prev[:], v)
		next = seq + 1
	})
	if !c.headless && (next-1 != c.hdr.AuditSeq || prev != c.hdr.AuditHash) {
		c.report.record(auditLog.record(next-1), fmt.Errorf("the log ends here, the sealed header says that event %d is the last or another one stood here", c.hdr.AuditSeq), remedyAudit)
	}
	c.segmentKeys(auditLog)
}

// segmentKeys unwraps the keys of a log and reports those that nothing needs.
func (c *contentCheck) segmentKeys(l segmentLog) {
	c.each(l.keys, func(p place, v []byte) {
		segment, ok := parseNumber(p.key)
		if !ok {
			c.report.record(p, errUnknown, remedyRestore)
			return
		}
		key, err := c.vault.openDEK(l.purpose, p, v)
		if err != nil {
			c.report.record(p, cause(err), remedyRestore)
			return
		}
		key.Close()
		if _, found := c.firstInSegment(l, segment); !found && !c.headless && !c.current(l, segment) {
			c.report.record(p, errOrphan, remedyRestore)
		}
	})
}

// current says whether a segment without records may have a key all the same:
// that which the last or the next record belongs to.
func (c *contentCheck) current(l segmentLog, segment uint64) bool {
	last := c.hdr.AuditSeq
	if l == outboxLog {
		last = c.hdr.OutboxLast
	}
	return segment == segmentOf(last+1) || last > 0 && segment == segmentOf(last)
}

// outbox opens every record and compares with the index and the gap notes.
func (c *contentCheck) outbox() {
	index, gaps := c.keysOf(bucketOutboxIndex), c.valuesOf(bucketOutboxGaps)
	var sizeBytes uint64
	c.each(bucketOutbox, func(p place, v []byte) {
		sizeBytes += uint64(len(v))
		id, ok := parseNumber(p.key)
		if !ok || id == 0 || !c.headless && id > c.hdr.OutboxLast {
			c.report.record(p, errUnknown, remedyOutbox)
			return
		}
		rec, err := c.outboxRecord(p.key, v)
		if err != nil {
			c.report.record(p, cause(err), remedyOutbox)
			forget(id, index, gaps)
			return
		}
		if err := c.noted(rec, index, gaps); err != nil {
			c.report.record(p, err, remedyOutbox)
		}
	})
	for k := range index {
		c.report.record(place{bucketOutboxIndex, []byte(k)}, errOrphan, remedyRestore)
	}
	for k := range gaps {
		c.report.record(place{bucketOutboxGaps, []byte(k)}, errOrphan, remedyRestore)
	}
	c.count(bucketOutbox, c.report.Outbox, c.hdr.OutboxRecords)
	c.count(bucketOutboxGaps, c.report.Gaps, c.hdr.OutboxGaps)
	if sizeBytes != c.hdr.OutboxBytes && !c.headless {
		c.report.record(place{bucketOutbox, nil}, fmt.Errorf("%d bytes are there, the sealed header counts %d", sizeBytes, c.hdr.OutboxBytes), remedyRestore)
	}
	c.segmentKeys(outboxLog)
}

// noted checks that a record is in the index, or a marker among the gap notes,
// and takes it out there.
func (c *contentCheck) noted(rec OutboxRecord, index map[string]bool, gaps map[string]uint64) error {
	if rec.Gap == nil {
		c.report.Outbox++
		k := string(indexKey(rec.Class, rec.ID))
		if !index[k] {
			return errors.New("it is not in the index of its class")
		}
		delete(index, k)
		return nil
	}
	c.report.Gaps++
	k := string(gapKey(rec.Class, rec.Gap.Reason))
	if gaps[k] != rec.ID {
		return errors.New("it is a gap marker that is not noted as open")
	}
	delete(gaps, k)
	if rec.Gap.To > rec.ID || rec.Gap.Count > rec.Gap.To-rec.Gap.From+1 {
		return errors.New("it is a gap marker with impossible numbers")
	}
	return nil
}

// forget takes out what is noted of a record that cannot be read, so that one
// damaged record is one problem.
func forget(id uint64, index map[string]bool, gaps map[string]uint64) {
	maps.DeleteFunc(index, func(k string, _ bool) bool { return strings.HasSuffix(k, string(numberKey(id))) })
	maps.DeleteFunc(gaps, func(_ string, n uint64) bool { return n == id })
}

func (c *contentCheck) keysOf(bucket string) map[string]bool {
	out := make(map[string]bool)
	c.each(bucket, func(p place, v []byte) { out[string(p.key)] = bytes.Equal(v, []byte{1}) })
	return out
}

func (c *contentCheck) valuesOf(bucket string) map[string]uint64 {
	out := make(map[string]uint64)
	c.each(bucket, func(p place, v []byte) { out[string(p.key)], _ = parseNumber(v) })
	return out
}
