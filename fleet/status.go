package fleet

import (
	"sync"
	"time"
)

// Status is a snapshot of the link, JSON-able. Counters start at 0 with the Link.
type Status struct {
	Connected   bool      `json:"connected"`
	Since       time.Time `json:"since"`   // of the present state of Connected
	Session     uint64    `json:"session"` // of the newest connection
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
	TimeFloor   time.Time `json:"time_floor,omitzero"` // latest time known to have passed; keep it for Config.NotBefore

	Connects     uint64 `json:"connects"`      // connections that came up
	Failures     uint64 `json:"failures"`      // attempts and connections that ended with an error
	Published    uint64 `json:"published"`     // records handed to the broker, repeats included
	Resent       uint64 `json:"resent"`        // of these, records that had been published before
	Acknowledged uint64 `json:"acknowledged"`  // records with a PUBACK
	Unsendable   uint64 `json:"unsendable"`    // records sent as a gap of the link's own reasons
	OutboxErrors uint64 `json:"outbox_errors"` // failed reads and deletes of the outbox; they are tried again
	InFlight     int    `json:"in_flight"`     // records waiting for PUBACK or deletion

	Executed        uint64            `json:"executed"`         // commands carried out
	Repeated        uint64            `json:"repeated"`         // commands answered from the ledger
	Failed          uint64            `json:"failed"`           // commands that could not be carried out or answered
	Refused         map[Reason]uint64 `json:"refused"`          // by reason
	AuditSuppressed uint64            `json:"audit_suppressed"` // refusals that were only counted
	AuditErrors     uint64            `json:"audit_errors"`     // refusals that Deps.Audit did not take; told with the next
	QueueFull       uint64            `json:"queue_full"`       // commands left unacknowledged for lack of room
}

// Status returns a snapshot. It does not wait for the network.
func (l *Link) Status() Status {
	l.status.mu.Lock()
	s := l.status.s
	l.status.mu.Unlock()
	s.Refused, s.AuditSuppressed, s.AuditErrors = l.refused.snapshot()
	s.TimeFloor = l.verify.floor.get()
	return s
}

// statusBook is the part of Status that the link's goroutines write.
type statusBook struct {
	mu sync.Mutex
	s  Status
}

func (b *statusBook) update(change func(*Status)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.s)
}

func (b *statusBook) since(now time.Time) { b.update(func(s *Status) { s.Since = now }) }

func (b *statusBook) connected(now time.Time, session uint64) {
	b.update(func(s *Status) {
		s.Connected, s.Since, s.Session = true, now, session
		s.Connects++
	})
}

func (b *statusBook) disconnected(now time.Time, err error) {
	b.update(func(s *Status) {
		if s.Connected {
			s.Connected, s.Since = false, now
		}
		s.InFlight = 0
		if err != nil {
			s.Failures++
			s.LastError, s.LastErrorAt = err.Error(), now
		}
	})
}
