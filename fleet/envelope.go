package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

const wireVersion = 1

// ErrEnvelope is returned for a message that is not of this wire version or not of its shape.
var ErrEnvelope = errors.New("cannot read message")

// Envelope is the payload of every event, result and gap message. Body is sealed (SealEvent); the rest is readable by
// the broker and therefore holds no personal data.
type Envelope struct {
	Version int    `json:"v"`
	ID      uint64 `json:"id"`      // of the outbox record; stays the same when the record is sent again
	Origin  string `json:"origin"`  // identity of the outbox that numbered the record
	Session uint64 `json:"session"` // of the connection that carried it
	Class   string `json:"class"`
	Body    []byte `json:"body"` // base64 in JSON
}

// Binding returns what the body of e, received below the topics t, must be bound to.
func (e Envelope) Binding(t Topics) Binding {
	return Binding{Tenant: t.tenant, Device: t.device, Origin: e.Origin, Class: e.Class, ID: e.ID}
}

// ParseEnvelope reads an Envelope strictly: exactly its members, each once. The error matches ErrEnvelope.
func ParseEnvelope(data []byte) (Envelope, error) {
	if _, err := strictObject(data, "v", "id", "origin", "session", "class", "body"); err != nil {
		return Envelope{}, fmt.Errorf("%w: %v", ErrEnvelope, err)
	}
	var e Envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return Envelope{}, fmt.Errorf("%w: a member has the wrong type", ErrEnvelope)
	}
	if e.Version != wireVersion {
		return Envelope{}, fmt.Errorf("%w: version %d, this side reads version %d", ErrEnvelope, e.Version, wireVersion)
	}
	if err := ValidateName(e.Class); err != nil {
		return Envelope{}, fmt.Errorf("%w: class: %v", ErrEnvelope, err)
	}
	if e.Origin != "" && ValidateName(e.Origin) != nil {
		return Envelope{}, fmt.Errorf("%w: origin: %v", ErrEnvelope, ErrName)
	}
	return e, nil
}

// Birth is the retained message with which a device introduces itself on each connection. Not sealed: no personal data.
type Birth struct {
	Version  int       `json:"v"`
	Tenant   string    `json:"tenant"`
	Device   string    `json:"device"`
	Session  uint64    `json:"session"`
	Software string    `json:"version"`
	Started  time.Time `json:"started"`
	Models   []string  `json:"models"`
}

// State is the retained online flag and the will. A reader ignores an offline state of an older session than the newest
// birth it has seen: it is the late will of a connection that was replaced.
type State struct {
	Online  bool   `json:"online"`
	Session uint64 `json:"session"`
}

// Result is the answer to a command. It travels as the sealed body of a record of ClassResult.
type Result struct {
	ID       string          `json:"id"` // of the command
	Command  string          `json:"cmd"`
	Status   string          `json:"status"`           // StatusOK, StatusRefused or StatusFailed
	Reason   Reason          `json:"reason,omitempty"` // why it was refused
	Repeated bool            `json:"repeated"`         // Body is the recorded answer of an earlier execution
	Body     json.RawMessage `json:"body,omitempty"`
}

// The values of Result.Status.
const (
	// StatusOK: executed, now or earlier; Body is the answer.
	StatusOK = "ok"
	// StatusRefused: not executed and never will be; Reason says why.
	StatusRefused = "refused"
	// StatusFailed: not executed because of a trouble of the device; the same command may be sent again.
	StatusFailed = "failed"
)

// Encode returns the JSON that Deps.Reply stores as the payload of a record of ClassResult.
func (r Result) Encode() ([]byte, error) {
	out, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("cannot encode the result of command %q: its body is not JSON", r.ID)
	}
	return out, nil
}

// ParseResult reads what Encode wrote. The error matches ErrEnvelope.
func ParseResult(data []byte) (Result, error) {
	var r Result
	if err := json.Unmarshal(data, &r); err != nil || r.ID == "" {
		return Result{}, fmt.Errorf("%w: not a result", ErrEnvelope)
	}
	return r, nil
}

// Gap is the body of a record of ClassGap: records that will not come. The outbox makes it for what it had to drop, the
// link for a record that it cannot send.
type Gap struct {
	Class  string `json:"class"` // of the missing records; empty when it cannot be told
	Count  uint64 `json:"count"`
	From   uint64 `json:"from"` // id of the first
	To     uint64 `json:"to"`   // id of the last; those between may be of other classes, and come
	Reason string `json:"reason"`
}

// Reasons of the gaps that the link makes. An outbox has its own.
const (
	GapTooLarge = "too_large" // over Config.MaxRecordBytes
	GapClass    = "bad_class" // the class is no name
	GapDamaged  = "damaged"   // DamagedRecord
)
