package uart

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"go.bug.st/serial"

	"vigil/sensors"
)

// Size of the pictures of the family, in pixels, at 500 pixels per inch.
const (
	DefaultWidth  = 256
	DefaultHeight = 288
)

// Rates are the baud rates that are tried when none is configured, the likeliest first.
var Rates = []int{57600, 115200, 9600, 19200, 38400}

// Options describe a reader.
type Options struct {
	Name          string // of the sensor, put into every frame
	Path          string // of the port
	Baud          int    // 0 finds it
	Address       uint32 // 0 means AnyAddress
	Password      uint32
	Width, Height int // 0 means DefaultWidth, DefaultHeight; Width is even
	Frames        int // how many may be held at once by whoever takes them; 0 means 4
	Light         bool
	Timing        Timing
}

func (o Options) withDefaults() Options {
	if o.Width == 0 && o.Height == 0 {
		o.Width, o.Height = DefaultWidth, DefaultHeight
	}
	if o.Frames == 0 {
		o.Frames = 4
	}
	if o.Address == 0 {
		o.Address = AnyAddress
	}
	o.Timing = o.Timing.withDefaults()
	return o
}

// Stats are what became of the line and the touches since the Source was made.
type Stats struct {
	Touches  uint64 // frames handed out
	Lost     uint64 // touches without a frame
	Again    uint64 // commands and transfers that were asked for once more
	Commands uint64
	Damage   map[string]uint64 // by kind, those seen
	Baud     int               // of the line, 0 while the module has not been found
}

// Source is a reader at a port. It implements sensors.Source.
type Source struct {
	opts   Options
	pool   *sensors.Pool
	cancel context.CancelFunc
	life   context.Context //nolint:containedctx // of the source, ended by Close

	busy    sync.Mutex // held while Next runs
	port    serial.Port
	module  *Module
	packed  []byte // a picture as it comes
	rested  bool   // the glass was seen empty since the last touch
	missing bool   // the caller knows that the port is gone

	mu    sync.Mutex
	stats Stats
}

// Open checks the options; the port is opened by the first Next.
func Open(o Options) (*Source, error) {
	o = o.withDefaults()
	if o.Width < 2 || o.Width%2 != 0 || o.Height < 1 || o.Width > 1024 || o.Height > 1024 {
		return nil, fmt.Errorf("sensor %s: pictures of %d x %d pixels: an even width and a height up to 1024", o.Name, o.Width, o.Height)
	}
	if o.Baud < 0 || o.Frames < 0 {
		return nil, fmt.Errorf("sensor %s: baud rate and frames cannot be negative", o.Name)
	}
	s := &Source{opts: o, pool: sensors.NewPool(o.Frames), packed: make([]byte, o.Width*o.Height/2)}
	s.life, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Next implements sensors.Source. Lost touches are a *sensors.SkippedError; ErrBaudRate, ErrSilent, ErrStuck and ErrPassword
// leave the source usable: the next call looks for the module anew.
func (s *Source) Next(ctx context.Context) (*sensors.Frame, error) {
	s.busy.Lock()
	defer s.busy.Unlock()
	if s.life.Err() != nil { // the context below ends a moment later, and a port that was opened meanwhile would stay so
		return nil, os.ErrClosed
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(s.life, stop)()
	f, err := s.next(ctx)
	s.note()
	if s.life.Err() != nil {
		if f != nil {
			f.Release()
		}
		return nil, os.ErrClosed
	}
	return f, err
}

func (s *Source) next(ctx context.Context) (*sensors.Frame, error) {
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	f, err := s.touch(ctx)
	var skipped *sensors.SkippedError
	switch {
	case err == nil || ctx.Err() != nil || errors.As(err, &skipped):
		return f, err
	case isGone(err):
		s.disconnect()
		s.missing = true
		return nil, fmt.Errorf("%s: %w", s.opts.Path, sensors.ErrUnplugged)
	}
	s.disconnect()
	return nil, fmt.Errorf("%s: %w", s.opts.Path, err)
}

// connect opens the port and finds the module; it waits for a port that was told to be gone.
func (s *Source) connect(ctx context.Context) error {
	for s.module == nil {
		err := s.find(ctx)
		if err == nil {
			s.missing, s.rested = false, true
			return nil
		}
		s.disconnect()
		if !isGone(err) {
			return fmt.Errorf("%s: %w", s.opts.Path, err)
		}
		if !s.missing {
			s.missing = true
			return fmt.Errorf("%s: %w", s.opts.Path, sensors.ErrUnplugged)
		}
		if err := sleep(ctx, s.opts.Timing.Retry); err != nil {
			return err
		}
	}
	return nil
}

// find shakes hands at the configured rate, then at the others: an answer there is ErrBaudRate, unless none is configured.
func (s *Source) find(ctx context.Context) error {
	rates := Rates
	if s.opts.Baud != 0 {
		rates = append([]int{s.opts.Baud}, Rates...)
	}
	var damaged error
	for i, baud := range rates {
		if i > 0 && baud == s.opts.Baud {
			continue
		}
		err := s.shake(ctx, baud)
		switch line := new(LineError); {
		case err == nil && s.opts.Baud != 0 && baud != s.opts.Baud:
			return fmt.Errorf("%w: the module speaks at %d baud, the configuration says %d", ErrBaudRate, baud, s.opts.Baud)
		case err == nil:
			return s.greet(ctx, baud)
		case errors.As(err, &line) || errors.Is(err, ErrStuck) && s.module.link.heard: // something speaks, and makes no sense
			damaged = err
		case !errors.Is(err, ErrStuck):
			return err
		}
	}
	if damaged != nil {
		return damaged
	}
	return fmt.Errorf("%w at %v baud: check power, and that RX and TX are crossed", ErrSilent, Rates)
}

// shake opens the port at a rate and presents the password.
func (s *Source) shake(ctx context.Context, baud int) error {
	s.disconnect()
	port, err := serial.Open(s.opts.Path, &serial.Mode{BaudRate: baud})
	if err != nil {
		return err
	}
	s.port, s.module = port, NewModule(port, s.opts.Address, s.opts.Timing)
	if err := port.ResetInputBuffer(); err != nil {
		return err
	}
	return s.module.Verify(ctx, s.opts.Password)
}

// greet reads what the module says of itself and switches its light on.
func (s *Source) greet(ctx context.Context, baud int) error {
	if _, err := s.module.Parameters(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	s.stats.Baud = baud
	s.mu.Unlock()
	if !s.opts.Light {
		return nil
	}
	err := s.module.Light(ctx, true)
	if refused := new(CodeError); errors.As(err, &refused) {
		return nil // it has none: as good a reader as before
	}
	return err
}

// lookTries bounds how often a picture of one touch may fail before the finger counts as lifted too early.
const lookTries = 5

// touch waits until a finger that was not there before lies on the glass, and fetches its picture.
func (s *Source) touch(ctx context.Context) (*sensors.Frame, error) {
	f, err := s.pool.Get(ctx, s.opts.Width*s.opts.Height)
	if err != nil {
		return nil, err
	}
	captured, err := s.await(ctx)
	caught := err == nil
	if caught {
		err = s.module.Upload(ctx, s.packed)
	}
	if err == nil {
		s.fill(f, captured)
		return f, nil
	}
	f.Release()
	if line := new(LineError); errors.Is(err, ErrLifted) || caught && errors.As(err, &line) {
		s.mu.Lock()
		s.stats.Lost++
		n := s.stats.Touches + s.stats.Lost
		s.mu.Unlock()
		return nil, &sensors.SkippedError{Name: fmt.Sprintf("%s touch %d", s.opts.Name, n), Err: err}
	}
	return nil, err
}

// await returns when a new touch's picture lies in the module, and when that was taken.
func (s *Source) await(ctx context.Context) (captured time.Time, err error) {
	for failed := 0; ; {
		code, err := s.module.Look(ctx)
		switch {
		case err != nil:
			return captured, err
		case code == CodeNoFinger && failed > 0: // it was there, and is no more
			s.rested = true
			return captured, ErrLifted
		case code == CodeNoFinger:
			s.rested = true
		case code == OK && s.rested:
			s.rested = false
			return time.Now(), nil
		case code == CodeNoPicture && s.rested:
			if failed++; failed >= lookTries {
				s.rested = false
				return captured, ErrLifted
			}
			continue // at once, while it may still be there
		case code != OK && code != CodeNoPicture:
			return captured, &CodeError{cmdGetImage, code}
		}
		if err := sleep(ctx, s.opts.Timing.Poll); err != nil {
			return captured, err
		}
	}
}

// fill unpacks the picture into the frame's own memory.
func (s *Source) fill(f *sensors.Frame, captured time.Time) {
	w, h := s.opts.Width, s.opts.Height
	pixels := f.Buffer()[:w*h]
	Unpack(pixels, s.packed)
	clear(s.packed)
	s.mu.Lock()
	s.stats.Touches++
	f.Seq = s.stats.Touches
	s.mu.Unlock()
	f.Sensor, f.Captured, f.Format, f.FullRange, f.Width, f.Height = s.opts.Name, captured, sensors.Gray8, true, w, h
	f.Planes[0], f.Copies = sensors.Plane{Data: pixels, StrideBytes: w}, 2 // off the line, and unpacked
}

// Unpack makes 8-bit grey of pixels of 4 bits, two a byte, the left one in the upper half. dst holds twice as many bytes.
func Unpack(dst, packed []byte) {
	for i, b := range packed {
		dst[2*i], dst[2*i+1] = b>>4*17, b&15*17
	}
}

// Stats is a snapshot; safe at any time.
func (s *Source) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Damage = make(map[string]uint64, len(s.stats.Damage))
	for k, n := range s.stats.Damage {
		st.Damage[k] = n
	}
	return st
}

// note moves what the link counted into the stats.
func (s *Source) note() {
	if s.module == nil {
		return
	}
	l := s.module.link
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Again += l.again
	s.stats.Commands += l.asked
	l.again, l.asked = 0, 0
	for d, n := range l.decoder.Counts {
		if n > 0 {
			if s.stats.Damage == nil {
				s.stats.Damage = map[string]uint64{}
			}
			s.stats.Damage[Damage(d).String()] += n
		}
	}
	l.decoder.Counts = [damages]uint64{}
}

// disconnect closes the port.
func (s *Source) disconnect() {
	s.note()
	if s.port != nil {
		s.port.Close() //nolint:errcheck // nothing was buffered
	}
	s.port, s.module = nil, nil
}

// Close implements sensors.Source. The light stays as it is; a transfer is cut off.
func (s *Source) Close() error {
	s.cancel()
	s.busy.Lock() // Next notices within a slice
	defer s.busy.Unlock()
	s.disconnect()
	clear(s.packed)
	s.pool.Close()
	return nil
}

// isGone reports whether the port itself is not there, or went away.
func isGone(err error) bool {
	var port *serial.PortError
	if errors.As(err, &port) && port.Code() == serial.PortClosed {
		return true
	}
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ENODEV)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
