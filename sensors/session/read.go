package session

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"vigil/sensors"
)

// Reader reads the frames of a session in their order.
type Reader struct {
	Header Header
	in     *bufio.Reader
	seal   *sealer
	sealed []byte
	plain  []byte
	frames uint64
	ended  bool
}

// NewReader reads the header and opens the key. Errors: ErrFormat, ErrExpired at the time now, ErrNoConsent, the keeper's.
func NewReader(in io.Reader, k Keeper, now time.Time) (*Reader, error) {
	b := bufio.NewReader(in)
	h, raw, err := readHeader(b)
	if err != nil {
		return nil, err
	}
	if err := h.check(now); err != nil {
		return nil, err
	}
	key, err := k.Open(h.Key, h.ID)
	if err != nil {
		return nil, fmt.Errorf("cannot open the session's key, which another device may have made: %w", err)
	}
	defer clear(key)
	r := &Reader{Header: h, in: b}
	r.seal, err = newSealer(key, raw)
	return r, err
}

// next returns the next frame, valid until the call after. io.EOF is the end of a whole session, io.ErrUnexpectedEOF that
// of one that was cut off.
func (r *Reader) next() (recorded, error) {
	if r.ended {
		return recorded{}, io.EOF
	}
	var size [4]byte
	if _, err := io.ReadFull(r.in, size[:]); err != nil {
		return recorded{}, cut(err)
	}
	n := int(le.Uint32(size[:]))
	if n < gcmTag+1 || n > maxFrame+frameHeader+gcmTag {
		return recorded{}, fmt.Errorf("%w: a segment of %d bytes", ErrFormat, n)
	}
	if err := r.fetch(n); err != nil {
		return recorded{}, err
	}
	var err error
	if r.plain, err = r.seal.aead.Open(r.plain[:0], r.seal.nonce(), r.sealed, r.seal.bound[:]); err != nil {
		return recorded{}, fmt.Errorf("%w: segment %d was changed, or is in the wrong place", ErrFormat, r.seal.number-1)
	}
	switch r.plain[0] {
	case kindFrame:
		r.frames++
		return parseFrame(r.plain)
	case kindEnd:
		r.ended = true
		if len(r.plain) != 9 || le.Uint64(r.plain[1:]) != r.frames {
			return recorded{}, fmt.Errorf("%w: the end does not count %d frames", ErrFormat, r.frames)
		}
		return recorded{}, io.EOF
	}
	return recorded{}, fmt.Errorf("%w: a segment of kind %d", ErrFormat, r.plain[0])
}

// fetch reads n bytes of ciphertext, in parts, so that a length that lies takes no memory.
func (r *Reader) fetch(n int) error {
	const part = 1 << 20
	r.sealed = r.sealed[:0]
	for n > 0 {
		m := min(n, part)
		at := len(r.sealed)
		r.sealed = append(r.sealed, make([]byte, m)...)
		if _, err := io.ReadFull(r.in, r.sealed[at:]); err != nil {
			return cut(err)
		}
		n -= m
	}
	return nil
}

func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the session was cut off: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// Options of Open.
type Options struct {
	Name  string // of the sensor, put into every frame; empty is the recorded one
	Speed float64
	Step  bool // frame by frame: Next never waits
	Now   func() time.Time
}

// Source plays a session with the timing that it was recorded with. It implements sensors.Source: what was lost before it was
// recorded is a gap in the sequence numbers again, Captured is the time at which the frame is played. An expired session ends
// with ErrExpired in the middle.
type Source struct {
	opts   Options
	file   *os.File
	reader *Reader
	pool   *sensors.Pool
	closed context.Context
	cancel context.CancelFunc
	once   sync.Once

	busy  sync.Mutex
	start time.Time // when the first frame was played
	ready bool
	frame recorded // read, but not played yet
}

// Open opens a session file. Errors are those of NewReader, with the path.
func Open(path string, k Keeper, o Options) (*Source, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Speed <= 0 {
		o.Speed = 1
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r, err := NewReader(f, k, o.Now())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot replay %s: %w", path, err), f.Close())
	}
	if o.Name == "" {
		o.Name = r.Header.Sensor
	}
	s := &Source{opts: o, file: f, reader: r, pool: sensors.NewPool(4)}
	s.closed, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Header describes the session.
func (s *Source) Header() Header { return s.reader.Header }

// Next implements sensors.Source.
func (s *Source) Next(ctx context.Context) (*sensors.Frame, error) {
	s.busy.Lock()
	defer s.busy.Unlock()
	f, err := s.next(ctx)
	if err != nil && s.closed.Err() != nil {
		return nil, os.ErrClosed
	}
	return f, err
}

func (s *Source) next(ctx context.Context) (*sensors.Frame, error) {
	if err := errors.Join(ctx.Err(), s.closed.Err()); err != nil {
		return nil, err
	}
	if !s.ready {
		r, err := s.reader.next()
		if err != nil {
			return nil, err
		}
		s.frame, s.ready = r, true
	}
	if err := s.pace(ctx); err != nil {
		return nil, err
	}
	if err := s.reader.Header.check(s.opts.Now()); err != nil {
		return nil, err
	}
	r := &s.frame
	f, err := s.pool.Get(ctx, len(r.planes[0].Data)+len(r.planes[1].Data))
	if err != nil {
		return nil, err
	}
	rest := f.Buffer()
	for i, p := range r.planes {
		if n := copy(rest, p.Data); n > 0 {
			f.Planes[i], rest = sensors.Plane{Data: rest[:n:n], StrideBytes: p.StrideBytes}, rest[n:]
		}
	}
	f.Sensor, f.Seq, f.Captured, f.Width, f.Height = s.opts.Name, r.seq, time.Now(), r.width, r.height
	f.Format, f.FullRange = r.format, r.fullRange
	s.ready = false
	return f, nil
}

// pace waits until the frame at hand is due.
func (s *Source) pace(ctx context.Context) error {
	if s.opts.Step {
		return nil
	}
	if s.start.IsZero() {
		s.start = time.Now().Add(-time.Duration(float64(s.frame.since) / s.opts.Speed))
	}
	wait := time.Until(s.start.Add(time.Duration(float64(s.frame.since) / s.opts.Speed)))
	if wait <= 0 {
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-s.closed.Done():
		return os.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close closes the file, wakes a waiting Next and wipes the pictures: at once those that nobody holds.
func (s *Source) Close() (err error) {
	s.once.Do(func() {
		s.cancel()
		s.pool.Close()
		s.busy.Lock()
		defer s.busy.Unlock()
		clear(s.reader.plain[:cap(s.reader.plain)])
		err = s.file.Close()
	})
	return err
}
