package fleet

import (
	"context"
	"log/slog"
	"sync"

	"golang.org/x/time/rate"
)

// Reason says why a command was refused. The values are stable: they are counter names, audit entries and wire values.
type Reason string

// The reasons. Up to ReasonSignature nothing of the message is believed; from ReasonMalformed on it may have been signed.
const (
	ReasonTooLarge   Reason = "too_large"     // more than MaxCommandBytes
	ReasonUnsigned   Reason = "unsigned"      // plain JSON, no signature, or "alg":"none"
	ReasonAlgorithm  Reason = "bad_algorithm" // any algorithm but EdDSA
	ReasonHeader     Reason = "bad_header"    // members other than alg, kid, typ, or another typ
	ReasonUnknownKey Reason = "unknown_key"   // no command key of that id
	ReasonSignature  Reason = "bad_signature" // the signature does not fit
	ReasonMalformed  Reason = "malformed"     // not a JWS, or claims or args of the wrong shape
	ReasonForeign    Reason = "foreign"       // for another tenant or device
	ReasonClock      Reason = "clock"         // this device's clock stands before a time known to have passed
	ReasonLifetime   Reason = "lifetime"      // longer than MaxCommandLifetime
	ReasonExpired    Reason = "expired"       // exp has passed
	ReasonFuture     Reason = "from_future"   // iat has not come; the device's clock may be wrong
	ReasonUnknown    Reason = "unknown"       // unknown command
	ReasonReplayed   Reason = "replayed"      // a used id with another content
)

// The audit log must not be filled by whoever can send bad commands: a few calls per reason in a row, then one in 20 s;
// 14 reasons make at most 60,480 entries a day.
const (
	auditBurst     = 8
	auditPerSecond = rate.Limit(0.05)
)

// answerable are the refusals that are answered: the command was signed by the fleet and meant for this device.
func (r Reason) answerable() bool {
	switch r {
	case ReasonClock, ReasonLifetime, ReasonExpired, ReasonFuture, ReasonUnknown, ReasonReplayed:
		return true
	}
	return false
}

// Refusal is what Deps.Audit is told.
type Refusal struct {
	Reason Reason
	// CommandID is set only when the signature was good; an unsigned id is anybody's text and is left out.
	CommandID string
	// Suppressed counts the refusals for the same reason since the last call that were not reported one by one.
	Suppressed uint64
}

// refusals counts refusals by reason and reports them, rate limited per reason so that noise of one kind hides no other.
type refusals struct {
	audit func(context.Context, Refusal) error
	log   *slog.Logger

	mu         sync.Mutex
	counts     map[Reason]uint64
	pending    map[Reason]uint64 // refused, not reported
	limiters   map[Reason]*rate.Limiter
	suppressed uint64
	failed     uint64 // calls of audit that returned an error
}

func newRefusals(audit func(context.Context, Refusal) error, log *slog.Logger) *refusals {
	return &refusals{
		audit: audit, log: log,
		counts: map[Reason]uint64{}, pending: map[Reason]uint64{}, limiters: map[Reason]*rate.Limiter{},
	}
}

// refuse counts and, within the limit, audits one refusal. It reports whether it was within the limit; callers bound
// their answers with it.
func (r *refusals) refuse(ctx context.Context, reason Reason, id string) bool {
	missed, allowed := r.count(reason)
	if !allowed {
		return false
	}
	r.log.Warn("command refused", "reason", string(reason), "command", id, "suppressed", missed)
	if err := r.audit(ctx, Refusal{Reason: reason, CommandID: id, Suppressed: missed}); err != nil {
		r.log.Error("cannot audit a refused command", "reason", string(reason), "error", err)
		r.mu.Lock()
		r.failed++
		r.pending[reason] += missed + 1 // tell it with the next one
		r.mu.Unlock()
	}
	return true
}

func (r *refusals) count(reason Reason) (missed uint64, allowed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[reason]++
	if r.limiters[reason] == nil {
		r.limiters[reason] = rate.NewLimiter(auditPerSecond, auditBurst)
	}
	if !r.limiters[reason].Allow() {
		r.pending[reason]++
		r.suppressed++
		return 0, false
	}
	missed = r.pending[reason]
	r.pending[reason] = 0
	return missed, true
}

func (r *refusals) snapshot() (counts map[Reason]uint64, suppressed, failed uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts = make(map[Reason]uint64, len(r.counts))
	for k, v := range r.counts {
		counts[k] = v
	}
	return counts, r.suppressed, r.failed
}
