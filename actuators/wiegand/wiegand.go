// Package wiegand sends credentials over the two lines of a Wiegand interface, in the 26-bit format (H10301) and its 34-bit
// sibling: even parity over the first half, facility, card number, odd parity over the second half.
//
// Promises: a frame is whole or an error; both lines are at rest before and after it. A 0 is a pulse on D0, a 1 on D1; the
// lines are active low, which the Line hides. Send blocks for the frame: 26 bits take 53 ms with the usual times.
//
// A process of a general-purpose system cannot promise a pulse's width: it is at least Timing.Pulse, and longer whenever the
// kernel runs somebody else meanwhile. Controllers take 20 to 200 microseconds and more; what is too long becomes a
// misread number that the parity catches with even odds. Prefer OSDP.
package wiegand

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"time"

	"vigil/actuators"
)

// Formats.
const (
	Bits26 = 26 // facility of 8 bits, card of 16
	Bits34 = 34 // facility of 16 bits, card of 16
)

// Frame is the bits of a credential in the order of the wire, the first in the highest of the lower n bits.
func Frame(n int, facility, card uint64) (uint64, error) {
	facilityBits := n - 2 - 16
	if n != Bits26 && n != Bits34 {
		return 0, fmt.Errorf("a Wiegand frame has 26 or 34 bits, not %d", n)
	}
	if facility>>facilityBits != 0 || card>>16 != 0 {
		return 0, fmt.Errorf("facility %d and card %d do not fit %d bits: at most %d and 65535", facility, card, n, 1<<facilityBits-1)
	}
	body := facility<<16 | card
	half := (n - 2) / 2
	upper, lower := body>>half, body&(1<<half-1)
	even := uint64(bits.OnesCount64(upper) & 1)  // makes the first half even
	odd := uint64(bits.OnesCount64(lower)&1) ^ 1 // makes the second half odd
	return even<<(n-1) | body<<1 | odd, nil
}

// Timing of the lines. The zero value is 50 us pulses every 2 ms, and 50 ms of rest between two frames.
type Timing struct {
	Pulse, Period, Rest time.Duration
}

func (t Timing) withDefaults() Timing {
	if t.Pulse == 0 {
		t.Pulse = 50 * time.Microsecond
	}
	if t.Period == 0 {
		t.Period = 2 * time.Millisecond
	}
	if t.Rest == 0 {
		t.Rest = 50 * time.Millisecond
	}
	return t
}

// Options describe an interface.
type Options struct {
	Bits     int // Bits26 or Bits34
	Facility uint64
	Timing   Timing
	Wait     func(time.Duration) // nil waits in real time, without sleep where that would be too coarse
	Free     func() error        // frees the lines, by Close; nil: nothing
}

// Wiegand is one interface. It implements actuators.Actuator.
type Wiegand struct {
	opts   Options
	mu     sync.Mutex
	d0, d1 actuators.Line
	closed bool
}

// New puts both lines to rest.
func New(d0, d1 actuators.Line, o Options) (*Wiegand, error) {
	if _, err := Frame(o.Bits, o.Facility, 0); err != nil {
		return nil, err
	}
	o.Timing = o.Timing.withDefaults()
	if o.Timing.Pulse <= 0 || o.Timing.Period <= o.Timing.Pulse || o.Timing.Rest < 0 {
		return nil, fmt.Errorf("pulses of %v every %v: the period must be longer than the pulse", o.Timing.Pulse, o.Timing.Period)
	}
	if o.Wait == nil {
		o.Wait = precise
	}
	return &Wiegand{opts: o, d0: d0, d1: d1}, errors.Join(d0.Set(false), d1.Set(false))
}

// precise waits without the timer's coarseness for what is short.
func precise(d time.Duration) {
	const coarse = 200 * time.Microsecond
	end := time.Now().Add(d)
	if d > coarse {
		time.Sleep(d - coarse)
	}
	for time.Now().Before(end) { //nolint:revive // spins on purpose
	}
}

// Actuate implements actuators.Actuator. Errors: actuators.ErrNoCard, a card that does not fit, those of the lines. A frame
// that has begun is not cut by the context: half a frame is a wrong credential.
func (w *Wiegand) Actuate(ctx context.Context, g actuators.Grant) error {
	if g.Card == 0 {
		return actuators.ErrNoCard
	}
	frame, err := Frame(w.opts.Bits, w.opts.Facility, g.Card)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return errors.New("the Wiegand interface is closed")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for i := w.opts.Bits - 1; i >= 0; i-- {
		line := w.d0
		if frame>>i&1 == 1 {
			line = w.d1
		}
		if err := w.pulse(line); err != nil {
			return fmt.Errorf("bit %d of %d: %w", w.opts.Bits-i, w.opts.Bits, err)
		}
	}
	w.opts.Wait(w.opts.Timing.Rest)
	return nil
}

// pulse activates a line for the pulse and rests for what is left of the period.
func (w *Wiegand) pulse(line actuators.Line) error {
	if err := line.Set(true); err != nil {
		return errors.Join(err, line.Set(false))
	}
	w.opts.Wait(w.opts.Timing.Pulse)
	if err := line.Set(false); err != nil {
		return err
	}
	w.opts.Wait(w.opts.Timing.Period - w.opts.Timing.Pulse)
	return nil
}

// Close implements actuators.Actuator. It waits for the frame that is being sent, and may be called twice.
func (w *Wiegand) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	err := errors.Join(w.d0.Set(false), w.d1.Set(false))
	if w.opts.Free != nil {
		err = errors.Join(err, w.opts.Free())
	}
	return err
}
