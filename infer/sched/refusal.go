package sched

import (
	"fmt"
	"time"
)

// Reasons of a Refusal.
const (
	ReasonDeadline = "deadline" // could not be done in time behind the work ahead
	ReasonFull     = "full"     // no place of its class is left
	ReasonClosing  = "closing"  // the engine is being closed
	ReasonExpired  = "expired"  // admitted, but its deadline passed, or could not be kept any more, before it ran
)

// reasons in the order of Stats.
var reasons = [...]string{ReasonDeadline, ReasonFull, ReasonClosing, ReasonExpired}

// leastRetry is the least time that a refusal asks to wait, so that nobody spins.
const leastRetry = time.Millisecond

// closingRetry is how long a device takes at least to be back when its engine closes.
const closingRetry = time.Second

// Refusal is the error of a job that was not run.
type Refusal struct {
	Reason string
	Class  Class
	// Needs is how long the job would have taken, wait included; Has is how long it had. Both are 0 where unknown.
	Needs, Has time.Duration
	after      time.Duration
}

// RetryAfter is the time after which the same request could be admitted, if nothing else arrived meanwhile.
func (r *Refusal) RetryAfter() time.Duration { return r.after }

// Error implements error.
func (r *Refusal) Error() string {
	again := r.after.Round(time.Millisecond)
	switch r.Reason {
	case ReasonDeadline:
		return fmt.Sprintf("the engine would need %v, the request has %v: try again in %v, or allow it more time",
			r.Needs.Round(time.Millisecond), r.Has.Round(time.Millisecond), again)
	case ReasonFull:
		return fmt.Sprintf("the queue for the engine is full: try again in %v", again)
	case ReasonClosing:
		return fmt.Sprintf("the engine is being closed: try again in %v", again)
	}
	return fmt.Sprintf("the time of the request was over before its turn came: try again in %v", again)
}

func refuse(reason string, c Class, after time.Duration) *Refusal {
	return &Refusal{Reason: reason, Class: c, after: max(after, leastRetry)}
}
