// Package decide turns scores into decisions: thresholds per operation, lockout after failures, and one event for one
// person in front of a sensor instead of one a frame.
//
// Promises: everything here is a pure state machine. Time is an argument, there is no I/O, no goroutine and no lock; each
// value belongs to one goroutine. Memory is bounded: at most MaxTracks faces are followed per sensor and MaxLocks keys
// watched; what falls off is said at the constant. In steady state nothing is allocated.
//
// It does not run models, keep templates beyond the track they belong to, or write anything down: the caller persists
// Lockouts and audits what it is told.
package decide

import "time"

// Operation is what was asked.
type Operation string

// The operations of ISO/IEC 2382-37: a 1:1 comparison with a claimed identity, a 1:N search, and the search before an
// enrolment.
const (
	Verify    Operation = "verify"
	Identify  Operation = "identify"
	Duplicate Operation = "duplicate"
)

// Outcome is what was decided.
type Outcome string

// Outcomes. Every one is audited and published.
const (
	Match      Outcome = "match"
	NoMatch    Outcome = "no_match"
	LockedOut  Outcome = "locked_out"  // not compared, because the claimed identity is locked
	LowQuality Outcome = "low_quality" // not compared, because the face was below the floor
)

// Policy is what the operator configured, thresholds completed from the bundle.
type Policy struct {
	VerifyThreshold    float32
	IdentifyThreshold  float32
	DuplicateThreshold float32
	EnrollQuality      float32 // 0..1
	ProbeQuality       float32 // 0..1
	EnrollSamples      int
	ConfirmFrames      int
	UnknownFrames      int
	EventHold          time.Duration
	MaxFailures        int // 0 never locks
	FailureWindow      time.Duration
	Lockout            time.Duration
}

// Threshold is the score from which the operation says match.
func (p *Policy) Threshold(op Operation) float32 {
	switch op {
	case Verify:
		return p.VerifyThreshold
	case Duplicate:
		return p.DuplicateThreshold
	}
	return p.IdentifyThreshold
}
