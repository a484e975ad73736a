package v4l2

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vigil/sensors"
)

// Options says which camera, and what is wanted of it.
type Options struct {
	Name          string // name of the sensor, put into every frame
	Pin           Pin
	Format        sensors.Format // 0 takes the first the camera has of YUYV, NV12, GREY, MJPEG, RGB24
	Code          string         // the kernel's four characters, where a format comes in several: NV12 in one plane of memory or NM12 in two; empty takes any
	Width, Height int            // pixels; 0 takes what the camera makes of 640x480
	Rate          float64        // frames per second; 0 leaves it to the camera
	Buffers       int            // 0 means 6; two always stay with the driver
	Timeout       time.Duration  // without a frame before the stream is restarted; 0 means 2 s
	Controls      Profile        // set at every start of the stream
}

func (o *Options) wish() string {
	s := "any format"
	if o.Format != 0 {
		s = o.Format.String()
	}
	if o.Code != "" {
		s += " as " + o.Code
	}
	if o.Width > 0 {
		s += fmt.Sprintf(" of %dx%d", o.Width, o.Height)
	}
	return s
}

func (o *Options) check() error {
	switch {
	case o.Pin.Place == "" && o.Pin.Node == "":
		return fmt.Errorf("camera %s: a place or a node is needed: list them in %s", o.Name, ByPath)
	case o.Format > sensors.MJPEG:
		return fmt.Errorf("camera %s: unknown format %v", o.Name, o.Format)
	case o.Code != "" && !o.readable():
		return fmt.Errorf("camera %s: %v cannot be read from %q: the kernel's codes are %v", o.Name, o.Format, o.Code, codeNames(o.Format))
	case o.Width < 0 || o.Height < 0 || o.Width > maxSide || o.Height > maxSide || (o.Width == 0) != (o.Height == 0):
		return fmt.Errorf("camera %s: %dx%d pixels: 1 to %d, or both left out", o.Name, o.Width, o.Height, maxSide)
	case !(o.Rate >= 0) || o.Rate > 1000:
		return fmt.Errorf("camera %s: %v frames per second: 0 to 1000", o.Name, o.Rate)
	case o.Buffers != 0 && (o.Buffers < minBuffers || o.Buffers > maxBuffers):
		return fmt.Errorf("camera %s: %d buffers: %d to %d", o.Name, o.Buffers, minBuffers, maxBuffers)
	case o.Timeout < 0:
		return fmt.Errorf("camera %s: a negative time-out", o.Name)
	}
	return o.Controls.Check()
}

// readable says that the code is one of the format, or of any where none is named.
func (o *Options) readable() bool { return slices.Contains(codeNames(o.Format), o.Code) }

// Stats counts what a camera did.
type Stats struct {
	State     State
	Frames    uint64 // handed out
	Lost      uint64 // missing in the driver's sequence
	Starved   uint64 // of Lost: those for which the driver may have had no buffer, because we were late; the others it left out by itself
	LetGo     uint64 // given back unseen because holders kept all other buffers
	Damaged   uint64 // marked by the driver, short or empty
	Restarts  uint64 // of the stream, without the device having gone
	Connects  uint64 // times the device was opened
	Unstamped uint64 // frames whose time is that of their arrival, because the driver's was of no use
	Control   string // what was wrong with the controls at the last start; empty if nothing
	Rate      float64
}

// Source is one camera. It implements sensors.Source.
type Source struct {
	opts   Options
	kernel *Kernel
	events *watcher
	closed chan struct{}
	once   sync.Once

	busy     sync.Mutex // held while Next runs
	node     Node
	id       Identity
	stream   *stream
	seq      uint64 // of the last frame
	last     int64  // the driver's last sequence number in this stream, -1 before the first
	room     int    // buffers that the driver had, at the least, when it had filled the last frame
	idle     int    // buffers that it was seen with since, with none of them filled; -1 if not
	failures int    // restarts since the last frame
	reported error  // state that was told
	heard    time.Time

	frames, lost, starved, letGo, damaged, restarts, connects, unstamped atomic.Uint64
	state                                                                atomic.Value // State
	current                                                              atomic.Pointer[stream]

	statMu  sync.Mutex
	control string
	rate    float64
}

// Open checks the options. The camera is opened by the first Next, and need not be there yet.
func Open(o Options) (*Source, error) { return machine.Camera(o) }

// Camera is Open for the cameras of a kernel.
func (h *Kernel) Camera(o Options) (*Source, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Buffers == 0 {
		o.Buffers = defaultBuffers
	}
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Second
	}
	s := &Source{opts: o, kernel: h, events: newWatcher(), closed: make(chan struct{})}
	s.state.Store(StateUnplugged)
	return s, nil
}

// Bounds of trying again.
const (
	glance      = 100 * time.Millisecond // how long Close and the context may go unnoticed
	firstRetry  = 250 * time.Millisecond
	lastRetry   = 4 * time.Second
	maxFailures = 3 // restarts without a frame before the camera is called stalled
)

// Next implements sensors.Source.
func (s *Source) Next(ctx context.Context) (*sensors.Frame, error) {
	s.busy.Lock()
	defer s.busy.Unlock()
	for {
		if err := s.ended(ctx); err != nil {
			return nil, err
		}
		if s.stream == nil {
			if err := s.connect(ctx); err != nil {
				return nil, err
			}
		}
		f, err := s.take()
		if f != nil {
			return f, nil
		}
		if err != nil && !isSkipped(err) {
			err = s.mend(err)
		}
		if err != nil {
			return nil, err
		}
	}
}

func isSkipped(err error) bool {
	var skipped *sensors.SkippedError
	return errors.As(err, &skipped)
}

func (s *Source) ended(ctx context.Context) error {
	select {
	case <-s.closed:
		return os.ErrClosed
	default:
		return ctx.Err()
	}
}

// connect opens the camera and starts it, however long that takes. A trouble is returned once; the next call goes on
// trying, until there is another or none.
func (s *Source) connect(ctx context.Context) error {
	for delay := firstRetry; ; delay = min(2*delay, lastRetry) {
		if s.failures > maxFailures { // it could be opened, but did not deliver
			s.rest(ctx, delay)
		}
		if err := s.ended(ctx); err != nil {
			return err
		}
		err := s.start()
		if err == nil {
			return nil
		}
		if told := s.tell(err); told != nil {
			return told
		}
		s.rest(ctx, delay)
	}
}

// tell makes a trouble a StateError, once.
func (s *Source) tell(err error) error {
	state := classify(err)
	if s.reported != nil && StateOf(s.reported) == state {
		return nil
	}
	s.state.Store(state)
	s.reported = &StateError{Sensor: s.opts.Name, State: state, Err: err}
	return s.reported
}

// rest waits until something may have changed.
func (s *Source) rest(ctx context.Context, d time.Duration) {
	s.events.drain("")
	for end := time.Now().Add(d); time.Now().Before(end) && s.ended(ctx) == nil; {
		began := time.Now()
		wait := min(glance, time.Until(end))
		s.events.wait(wait)
		if time.Since(began) < wait { // an event
			return
		}
	}
}

// start opens the device, agrees on a format, sets the controls and starts streaming.
func (s *Source) start() (err error) {
	n, id, err := s.kernel.openCamera(&s.opts.Pin)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	s.events.drain("") // of the camera's earlier lives; if it goes right now, the kernel says so at the next ioctl
	l, err := negotiate(n, &s.opts)
	if err != nil {
		return err
	}
	bad := s.opts.Controls.apply(n)
	if gone(bad) {
		return bad
	}
	st, err := startStream(n, l, s.opts.Buffers)
	if err != nil {
		return err
	}
	s.node, s.id, s.stream, s.last, s.heard = n, id, st, -1, time.Now()
	s.room, s.idle = len(st.buffers), -1
	s.current.Store(st)
	s.connects.Add(1)
	s.statMu.Lock()
	defer s.statMu.Unlock()
	s.control, s.rate = "", 0
	if bad != nil {
		s.control = bad.Error()
	}
	if l.interval > 0 {
		s.rate = 1 / l.interval
	}
	return nil
}

// stop gives the device up; frames that are held stay.
func (s *Source) stop() error {
	if s.stream == nil {
		return nil
	}
	err := errors.Join(s.stream.stop(), s.node.Close())
	s.stream, s.node = nil, nil
	s.current.Store(nil)
	return err
}

// mend stops a stream that broke. The error is to be told; nil means that the stream is started again.
func (s *Source) mend(cause error) error {
	_ = s.stop() // of a device in trouble; what counts is the cause
	if gone(cause) || errors.Is(cause, sensors.ErrUnplugged) {
		s.failures = 0
		return s.tell(fmt.Errorf("%w: %w", sensors.ErrUnplugged, cause))
	}
	s.restarts.Add(1)
	if errors.Is(cause, errChanged) {
		return nil
	}
	if s.failures++; s.failures > maxFailures {
		return s.tell(fmt.Errorf("%w, not even after %d restarts: %w", ErrStalled, maxFailures, cause))
	}
	return nil
}

// Reasons to stop a stream that no errno says.
var (
	errChanged = errors.New("the camera changed its format")
	errQuiet   = errors.New("no frame in time")
	errRemoved = fmt.Errorf("%w: the kernel took it away", sensors.ErrUnplugged)
)

// take waits a glance for a frame. Neither frame nor error: none came, or it was let go.
func (s *Source) take() (*sensors.Frame, error) {
	b, number, err := s.stream.dequeue()
	switch {
	case errors.Is(err, errNone):
		s.idle = s.stream.driverHas()
		return nil, s.wait()
	case errors.Is(err, errDamage), errors.Is(err, errShort):
		s.heard = time.Now()
		s.count(number)
		s.damaged.Add(1)
		return nil, &sensors.SkippedError{Name: fmt.Sprintf("%s, frame %d", s.opts.Name, s.seq), Err: err}
	case err != nil:
		return nil, err
	}
	s.heard, s.failures = time.Now(), 0
	s.count(number)
	at, arrived, stamped := s.stream.captured()
	if !stamped {
		s.unstamped.Add(1)
	}
	ok, err := s.stream.lend(b)
	if !ok {
		s.letGo.Add(1)
		return nil, err
	}
	if s.reported != nil || s.frames.Load() == 0 {
		s.reported = nil
		s.state.Store(StateRunning)
	}
	f := &b.frame
	f.Sensor, f.Seq, f.Captured, f.Arrived = s.opts.Name, s.seq, at, arrived
	s.frames.Add(1)
	return f, nil
}

// count continues our sequence with the driver's. It begins anew with every stream; what lay between is not known. When no
// filled buffer waits for us, the driver has all that we do not hold, and it takes one for each frame: as long as that
// leaves it one, frames that are missing are none of our doing.
func (s *Source) count(number uint32) {
	step := int64(1)
	if s.last >= 0 {
		if d := int64(int32(number - uint32(s.last))); d > 0 { // the counter wraps; one that stands still is no counter
			step = d
		}
	}
	s.lost.Add(uint64(step - 1))
	if s.room < 1 {
		s.starved.Add(uint64(step - 1))
	}
	if s.idle >= 0 {
		s.room = s.idle
	}
	s.room, s.idle = s.room-1, -1
	s.seq += uint64(step)
	s.last = int64(number)
}

// wait polls, and looks for what ends a stream.
func (s *Source) wait() error {
	r, err := s.node.Wait(min(glance, s.opts.Timeout))
	if err != nil {
		return err
	}
	_, removed := s.events.drain(s.id.devPath)
	switch {
	case removed:
		return errRemoved
	case r.Event && s.stream.changed():
		return errChanged
	case r.Trouble && !r.Frame:
		if _, _, err := s.stream.dequeue(); err != nil && !errors.Is(err, errNone) {
			return err // the kernel says what it is
		}
		return fmt.Errorf("poll tells of an error: %w", errQuiet)
	case !r.Frame && time.Since(s.heard) > s.timeout():
		return errQuiet
	}
	return nil
}

// timeout is at least three frames long.
func (s *Source) timeout() time.Duration {
	three := min(3*s.stream.interval, 3600)
	return max(s.opts.Timeout, time.Duration(math.Ceil(three*float64(time.Second))))
}

// DMABuf exports plane p of a frame that the caller holds as a DMABUF descriptor, which the caller closes. It may be called
// from any goroutine until the frame's Release, and fails for a frame of a stream that has ended.
func (s *Source) DMABuf(f *sensors.Frame, p int) (fd int, err error) {
	st := s.current.Load()
	if st == nil {
		return -1, fmt.Errorf("cannot export the frame: %w", sensors.ErrUnplugged)
	}
	if fd, err = st.export(f, p); err != nil {
		return -1, fmt.Errorf("cannot export plane %d of frame %d: %w", p, f.Seq, err)
	}
	return fd, nil
}

// Stats may be called at any time.
func (s *Source) Stats() Stats {
	s.statMu.Lock()
	defer s.statMu.Unlock()
	return Stats{
		State: s.state.Load().(State), Frames: s.frames.Load(), Lost: s.lost.Load(), Starved: s.starved.Load(), LetGo: s.letGo.Load(), Damaged: s.damaged.Load(),
		Restarts: s.restarts.Load(), Connects: s.connects.Load(), Unstamped: s.unstamped.Load(), Control: s.control, Rate: s.rate,
	}
}

// Close implements sensors.Source. It waits for a Next that runs, at most as long as an ioctl and a glance take.
func (s *Source) Close() (err error) {
	s.once.Do(func() {
		close(s.closed)
		s.busy.Lock()
		defer s.busy.Unlock()
		err = s.stop()
		s.events.close()
	})
	return err
}
