package osdp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"vigil/actuators"
	"vigil/actuators/wiegand"
)

// CardLife is how long a card waits for the panel: a door that opens later opens for somebody else.
const CardLife = 5 * time.Second

// Errors of Actuate.
var (
	ErrNotFetched = errors.New("the control panel did not fetch the card in time: is it polling this address?")
	ErrFull       = errors.New("too many cards wait for the control panel")
)

// Options describe a peripheral at a port.
type Options struct {
	Address  byte
	Identity Identity
	Key      *[KeyBytes]byte // nil speaks in clear
	Bits     int             // of a card: 26 or 34
	Facility uint64
	Life     time.Duration // 0 means CardLife
}

// Reader is a Peripheral at a port, with a goroutine that answers the panel. It implements actuators.Actuator.
type Reader struct {
	*Peripheral
	opts Options
	port io.ReadWriteCloser
	done chan struct{}
	once sync.Once
	mu   sync.Mutex
	err  error // why the loop ended
}

// Serve answers the panel at the port, which it owns, until Close. A Read of the port may return 0 bytes without an error.
func Serve(port io.ReadWriteCloser, o Options) (*Reader, error) {
	if o.Address >= broadcast {
		return nil, fmt.Errorf("OSDP address %d: 0 to 126", o.Address)
	}
	if _, err := wiegand.Frame(o.Bits, o.Facility, 0); err != nil {
		return nil, err
	}
	if o.Key != nil && *o.Key == defaultKey {
		return nil, errors.New("the key is SCBK-D, which everybody knows: make one of your own")
	}
	if o.Life == 0 {
		o.Life = CardLife
	}
	r := &Reader{Peripheral: NewPeripheral(o.Address, o.Identity, o.Key), opts: o, port: port, done: make(chan struct{})}
	go r.run()
	return r, nil
}

// idle is how long the line must be silent before what is left of a frame is thrown away (clause 5.7: 20 ms between bytes,
// and what a USB adapter adds).
const idle = 200 * time.Millisecond

// run reads, answers and never blocks on anything but the port.
func (r *Reader) run() {
	defer close(r.done)
	var held []byte
	var last time.Time
	buf := make([]byte, 512)
	for {
		n, err := r.port.Read(buf)
		if err != nil {
			r.mu.Lock()
			r.err = err
			r.mu.Unlock()
			return
		}
		if n == 0 {
			continue
		}
		now := time.Now()
		if now.Sub(last) > idle {
			held = held[:0]
		}
		last = now
		held = append(held, buf[:n]...)
		for {
			taken, reply := r.Handle(held, now)
			held = slices.Delete(held, 0, taken)
			if reply != nil {
				if _, err := r.port.Write(reply); err != nil {
					break
				}
			}
			if taken == 0 || len(held) == 0 {
				break
			}
		}
	}
}

// Actuate implements actuators.Actuator: the card waits for the panel's poll. It returns when the panel went on behind the
// reply that held the card. Errors: actuators.ErrNoCard, ErrNotFetched, ErrFull, the port's.
func (r *Reader) Actuate(ctx context.Context, g actuators.Grant) error {
	if g.Card == 0 {
		return actuators.ErrNoCard
	}
	value, err := wiegand.Frame(r.opts.Bits, r.opts.Facility, g.Card)
	if err != nil {
		return err
	}
	c := &card{bits: r.opts.Bits, value: value, sent: make(chan struct{})}
	if !r.offer(c) {
		return ErrFull
	}
	t := time.NewTimer(r.opts.Life)
	defer t.Stop()
	select {
	case <-c.sent:
		return nil
	case <-t.C:
		err = ErrNotFetched
	case <-ctx.Done():
		err = ctx.Err()
	case <-r.done:
		r.mu.Lock()
		defer r.mu.Unlock()
		err = fmt.Errorf("the OSDP line ended: %w", r.err)
	}
	if !r.withdraw(c) {
		return nil // it went out at the last moment
	}
	return err
}

func (p *Peripheral) offer(c *card) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.cards) >= maxCards {
		return false
	}
	p.cards = append(p.cards, c)
	return true
}

// withdraw takes a card back; false if the panel has it.
func (p *Peripheral) withdraw(c *card) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.cards, c)
	if i < 0 {
		return false
	}
	p.cards = slices.Delete(p.cards, i, i+1)
	if p.inFlight == c {
		p.inFlight = nil
	}
	return true
}

// Close implements actuators.Actuator: it closes the port and ends the goroutine. It may be called twice.
func (r *Reader) Close() (err error) {
	r.once.Do(func() {
		err = r.port.Close()
		<-r.done
	})
	return err
}
