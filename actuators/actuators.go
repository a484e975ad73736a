// Package actuators defines what the device moves: a relay, or the lines and buses on which a door controller waits for a
// credential. The drivers are gpio (lines of the kernel, and the relay at one), wiegand and osdp.
//
// Promises: an Actuator does what one grant asks for, and only while Actuate or its hold runs; Close leaves everything in
// the safe state (relay off, lines at rest). Actuate is called by one goroutine at a time and blocks for as long as the
// actuation takes, at most until the context ends; Close may be called from another.
//
// It decides nothing, audits nothing and queues nothing: whoever wires it does, before Actuate.
package actuators

import (
	"context"
	"errors"
)

// Grant is what an actuation is for.
type Grant struct {
	Decision string // id of the decision, which is audited
	Subject  string // id of the person
	Card     uint64 // the person's number at the door controller; 0: none, which Wiegand and OSDP refuse
}

// ErrNoCard means that the person has no number at the door controller.
var ErrNoCard = errors.New("the person has no card number: name it in actuators.cards, or a common one in actuators.card")

// Actuator acts on a grant.
type Actuator interface {
	// Actuate acts and returns when it is done. An error means that nothing can be said about what the other side saw.
	Actuate(ctx context.Context, g Grant) error
	// Close leaves the safe state and frees the lines or the port.
	Close() error
}
