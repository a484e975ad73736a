package store

import (
	"encoding/hex"
	"fmt"
	"time"
)

// maxProblems bounds a report; what is found beyond is counted only.
const maxProblems = 200

// Problem is one thing that a check found. It holds no plaintext.
type Problem struct {
	Bucket  string `json:"bucket"` // "" for the file as a whole
	Key     string `json:"key"`    // printable form, "" for the bucket as a whole
	Problem string `json:"problem"`
	Remedy  string `json:"remedy"`
}

// Report is the outcome of a check.
type Report struct {
	Path       string    `json:"path"`
	Checked    time.Time `json:"checked"`
	FileBytes  int64     `json:"file_bytes"`
	Schema     uint16    `json:"schema"`
	StoreID    string    `json:"store_id"`
	Generation uint64    `json:"generation"` // transactions since the store was made
	Subjects   uint64    `json:"subjects"`
	Templates  uint64    `json:"templates"`
	Audit      uint64    `json:"audit_events"`
	AuditHead  string    `json:"audit_head"` // hex SHA-256 of the chain, to compare with an earlier report
	Outbox     uint64    `json:"outbox_records"`
	Gaps       uint64    `json:"outbox_gaps"`
	Dropped    uint64    `json:"outbox_dropped"`
	Commands   uint64    `json:"commands"`
	Settings   uint64    `json:"settings"`

	Problems     []Problem `json:"problems"` // the first 200
	ProblemCount int       `json:"problem_count"`
}

// OK says that nothing was found.
func (r Report) OK() bool { return r.ProblemCount == 0 }

// Err returns nil, or an error that names the first problem and matches
// ErrCorrupt.
func (r Report) Err() error {
	if r.OK() {
		return nil
	}
	p := r.Problems[0]
	return fmt.Errorf("cannot vouch for store %s: %d problems, the first in %s/%s: %s; %s: %w", r.Path, r.ProblemCount, p.Bucket, p.Key, p.Problem, p.Remedy, ErrCorrupt)
}

// Remedies that reports give.
const (
	remedyRestore = "restore the store from a backup"
	remedySubject = "delete this subject and enrol the person again, or restore the store from a backup"
	remedyOutbox  = "delete this outbox record; the audit log still has the event"
	remedyAudit   = "keep a copy of the file as evidence: the log was altered or the disk is failing; then restore the store from a backup"
	remedyRoot    = "start vigild once, it rewrites the page; if no power cut explains it, check the disk"
)

// add appends a problem, within the bound.
func (r *Report) add(p Problem) {
	r.ProblemCount++
	if len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, p)
	}
}

// record adds a problem of the record at p.
func (r *Report) record(p place, err error, remedy string) {
	r.add(Problem{p.bucket, printableKey(p.bucket, p.key), err.Error(), remedy})
}

// totals copies what the header says.
func (r *Report) totals(h header) {
	r.Generation, r.Dropped = h.Generation, h.OutboxDropped
	r.AuditHead = hex.EncodeToString(h.AuditHash[:])
}
