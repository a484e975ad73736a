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

// The operations of ISO/IEC 2382-37: a 1:1 comparison with a claimed identity, a 1:N search, the search before an
// enrolment, and enrolment.
const (
	Verify    Operation = "verify"
	Identify  Operation = "identify"
	Duplicate Operation = "duplicate"
	Enroll    Operation = "enroll" // only where it ends in a presentation attack; an enrolment itself is no comparison
)

// Outcome is what was decided.
type Outcome string

// Outcomes. Every one is audited and published.
const (
	Match      Outcome = "match"
	NoMatch    Outcome = "no_match"
	LockedOut  Outcome = "locked_out"  // not compared, because the claimed identity is locked
	LowQuality Outcome = "low_quality" // not compared, because the face was below the floor
	// PresentationAttack (ISO/IEC 30107-3): not compared, because what was shown is judged to be no living person but a
	// picture, a screen, a mask.
	PresentationAttack Outcome = "presentation_attack"
	// NoSecondFactor: the comparison matches, but the second factor that the policy wants was not given. Nobody failed.
	NoSecondFactor Outcome = "no_second_factor"
)

// Policy is what the operator configured, thresholds completed from the bundle.
type Policy struct {
	VerifyThreshold    float32
	IdentifyThreshold  float32
	DuplicateThreshold float32
	EnrollQuality      float32 // 0..1
	ProbeQuality       float32 // 0..1
	RequireLiveness    bool
	LivenessThreshold  float32 // from which a presentation is bona fide, 0..1
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

// Presented is what is known of a face before any comparison.
type Presented struct {
	Quality     float32 // 0..1
	Liveness    float32 // 0..1, if HasLiveness
	HasLiveness bool
}

// Admit says whether a face may be compared; if not, with which outcome it ends. Quality is judged first: from a face that
// is too poor nothing is concluded, neither for nor against the person. Where liveness is required, a face without a
// score of it counts as an attack.
func (p *Policy) Admit(f Presented) (Outcome, bool) {
	switch {
	case !(f.Quality >= p.ProbeQuality):
		return LowQuality, false
	case p.RequireLiveness && !(f.HasLiveness && f.Liveness >= p.LivenessThreshold):
		return PresentationAttack, false
	}
	return "", true
}
