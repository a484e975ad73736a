package uart

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"
)

// Port is the serial line that a Module speaks over. Read returns 0 bytes without an error when its time is over.
type Port interface {
	io.ReadWriteCloser
	SetReadTimeout(time.Duration) error
}

// Timing bounds how long the module may take. The zero value is that of real modules.
type Timing struct {
	Reply time.Duration // from a command to its acknowledgement; taking a picture is the longest. 0 means 1.5 s
	Gap   time.Duration // silence within an answer that means that the rest will not come. 0 means 300 ms
	Poll  time.Duration // between two looks at the glass. 0 means 60 ms
	Retry time.Duration // between two looks for a port that is gone. 0 means 1 s
}

func (t Timing) withDefaults() Timing {
	for _, d := range []struct {
		value *time.Duration
		unset time.Duration
	}{{&t.Reply, 1500 * time.Millisecond}, {&t.Gap, 300 * time.Millisecond}, {&t.Poll, 60 * time.Millisecond}, {&t.Retry, time.Second}} {
		if *d.value == 0 {
			*d.value = d.unset
		}
	}
	return t
}

// tries is how often a command is sent, or a picture asked for, before that is an error.
const tries = 3

// slice is the longest single read, so that an ended context is noticed.
const slice = 50 * time.Millisecond

// link exchanges packets over a port. Not safe for concurrent use.
type link struct {
	port    Port
	timing  Timing
	decoder Decoder
	out, in []byte
	heard   bool // anything at all since the last send
	asked   uint64
	again   uint64 // commands and pictures that were asked for once more
}

func newLink(p Port, address uint32, t Timing) *link {
	return &link{port: p, timing: t, decoder: Decoder{Address: address}, in: make([]byte, 512)}
}

// errTimeout: nothing came in time.
var errTimeout = errors.New("no answer in time")

// send writes one command.
func (l *link) send(content ...byte) error {
	l.asked++
	l.out = Packet{l.decoder.Address, Command, content}.Append(l.out[:0])
	for rest := l.out; len(rest) > 0; {
		n, err := l.port.Write(rest)
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// receive waits for the next packet for so long after the last byte. Errors: errTimeout, the context's, the port's.
func (l *link) receive(ctx context.Context, patience time.Duration) (Packet, error) {
	deadline := time.Now().Add(patience)
	for {
		if p, ok := l.decoder.Next(); ok {
			return p, nil
		}
		if err := ctx.Err(); err != nil {
			return Packet{}, err
		}
		left := time.Until(deadline)
		if left <= 0 {
			return Packet{}, errTimeout
		}
		n, err := l.read(min(left, slice))
		if err != nil {
			return Packet{}, err
		}
		if n > 0 && patience < l.timing.Reply { // within an answer only silence counts
			deadline = time.Now().Add(patience)
		}
	}
}

func (l *link) read(wait time.Duration) (int, error) {
	if err := l.port.SetReadTimeout(wait); err != nil {
		return 0, err
	}
	n, err := l.port.Read(l.in)
	if n > 0 {
		l.heard = true
		l.decoder.Feed(l.in[:n])
		clear(l.in[:n]) // pieces of a print
	}
	return n, err
}

// maxDrainBytes bounds what is thrown away while the line should fall silent: two pictures with their packets.
const maxDrainBytes = 1 << 17

// drain throws away what is still coming, until the line is silent for a gap. A line that never is means ErrStuck.
func (l *link) drain(ctx context.Context) error {
	dropped := 0
	for {
		l.decoder.forget()
		n, err := l.read(l.timing.Gap)
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case n == 0:
			return nil
		}
		if dropped += n; dropped > maxDrainBytes {
			return ErrStuck
		}
	}
}

// worst is the damage that was counted since before, the most telling first.
func (l *link) worst(before [damages]uint64) Damage {
	for _, d := range []Damage{BadChecksum, BadLength, BadAddress, Unexpected, Truncated, BadKind, Noise} {
		if l.decoder.Counts[d] > before[d] {
			return d
		}
	}
	return noDamage
}

// ask sends a command until it is acknowledged and returns the code and what came with it, its own memory. Commands may
// arrive twice. Errors: ErrStuck (nothing came), *LineError, the context's, the port's.
func (l *link) ask(ctx context.Context, content ...byte) (Code, []byte, error) {
	before := l.decoder.Counts
	l.heard = false
	for n := range tries {
		if n > 0 {
			l.again++
			if err := l.drain(ctx); err != nil {
				return 0, nil, err
			}
		}
		if err := l.send(content...); err != nil {
			return 0, nil, err
		}
		p, err := l.acknowledgement(ctx)
		switch {
		case errors.Is(err, errTimeout):
			continue
		case err != nil:
			return 0, nil, err
		case Code(p.Content[0]) == CodeReceive:
			continue
		}
		return Code(p.Content[0]), slices.Clone(p.Content[1:]), nil
	}
	if !l.heard {
		return 0, nil, ErrStuck
	}
	l.decoder.forget()
	return 0, nil, &LineError{max(l.worst(before), Noise), tries}
}

// maxStrays bounds the packets that are passed over in wait of an acknowledgement: those of a picture.
const maxStrays = 2048

// acknowledgement waits for one; what is left of a transfer before it is passed over.
func (l *link) acknowledgement(ctx context.Context) (Packet, error) {
	for range maxStrays {
		p, err := l.receive(ctx, l.timing.Reply)
		if err != nil || p.Kind == Ack && len(p.Content) > 0 {
			return p, err
		}
		l.decoder.Counts[Unexpected]++
	}
	return Packet{}, errTimeout
}

// order is ask for a command that must be acknowledged with OK. Errors: those of ask, *CodeError.
func (l *link) order(ctx context.Context, content ...byte) ([]byte, error) {
	code, rest, err := l.ask(ctx, content...)
	if err == nil && code != OK {
		err = &CodeError{content[0], code}
	}
	return rest, err
}
