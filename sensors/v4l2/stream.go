package v4l2

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"vigil/sensors"
	"vigil/sensors/v4l2/internal/uapi"
)

// stream is one STREAMON with its buffers. One goroutine dequeues; frames come back from any. Its mappings live until the
// stream is stopped and the last lent frame is back.
type stream struct {
	node Node
	layout
	buffers []*slot
	buf     buffer // for dequeuing
	planes  [uapi.MaxPlanes]plane

	mu   sync.Mutex
	live bool // the descriptor is open and the buffers are the driver's
	lent int
	bad  error // of a buffer that could not be given back
}

// slot is one buffer: its mappings, its frame, and what it is queued with.
type slot struct {
	frame   sensors.Frame
	stream  *stream
	index   uint32
	maps    [2][]byte
	unmap   [2]func() error
	buf     buffer
	planes  [uapi.MaxPlanes]plane
	giveOut func(*sensors.Frame) // made once, so that lending allocates nothing
}

// Bounds of the number of buffers; spare is how many always stay with the driver.
const (
	minBuffers     = 4
	defaultBuffers = 6
	maxBuffers     = 32
	spare          = 2
)

// startStream maps count buffers, queues them and starts the driver. On an error nothing is left mapped; the node stays open.
func startStream(n Node, l layout, count int) (*stream, error) {
	s := &stream{node: n, layout: l, live: true}
	req := requestBuffers{Count: uint32(count), Type: l.kind, Memory: uapi.MemoryMmap}
	if err := ioctl(n, uapi.VidiocReqBufs, &req); err != nil {
		return nil, fmt.Errorf("cannot get buffers: %w", err)
	}
	err := s.start(int(req.Count))
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func (s *stream) start(count int) error {
	if count <= spare || count > maxBuffers {
		return fmt.Errorf("%w: the driver gives %d buffers, %d to %d are needed", ErrUnsuited, count, spare+1, maxBuffers)
	}
	for i := range count {
		if err := s.addSlot(uint32(i)); err != nil {
			return fmt.Errorf("buffer %d: %w", i, err)
		}
	}
	for _, b := range s.buffers {
		if err := b.queue(); err != nil {
			return fmt.Errorf("cannot queue buffer %d: %w", b.index, err)
		}
	}
	sub := eventSubscription{Type: uapi.EventSourceChange}
	_ = ioctl(s.node, uapi.VidiocSubscribeEvent, &sub) // cameras without it do not change by themselves
	kind := int32(s.kind)
	if err := ioctl(s.node, uapi.VidiocStreamOn, &kind); err != nil {
		return fmt.Errorf("cannot start the stream: %w", err)
	}
	return nil
}

// addSlot asks where buffer i lies and maps it.
func (s *stream) addSlot(i uint32) error {
	b := &slot{stream: s, index: i}
	b.giveOut = func(*sensors.Frame) { b.back() }
	b.prepare()
	if err := ioctl(s.node, uapi.VidiocQueryBuf, &b.buf); err != nil {
		return fmt.Errorf("cannot ask where it lies: %w", err)
	}
	s.buffers = append(s.buffers, b)
	for p := range s.layout.planes {
		offset, length := uint32(b.buf.Mem), b.buf.Length
		if s.kind == uapi.BufCaptureMplane {
			offset, length = uint32(b.planes[p].Mem), b.planes[p].Length
		}
		if int(length) < s.need(p) {
			return fmt.Errorf("%w: plane %d has %d bytes, a picture needs %d", ErrUnsuited, p, length, s.need(p))
		}
		data, unmap, err := s.node.Map(int64(offset), int(length))
		if err != nil {
			return fmt.Errorf("cannot map plane %d of %d bytes: %w", p, length, err)
		}
		b.maps[p], b.unmap[p] = data, unmap
	}
	return nil
}

// prepare fills the structure that names the buffer to the kernel.
func (b *slot) prepare() {
	s := b.stream
	b.buf = buffer{Index: b.index, Type: s.kind, Memory: uapi.MemoryMmap}
	if s.kind == uapi.BufCaptureMplane {
		b.planes = [uapi.MaxPlanes]plane{}
		b.buf.Mem, b.buf.Length = uint64(uintptr(unsafe.Pointer(&b.planes))), uapi.MaxPlanes
	}
}

func (b *slot) queue() error {
	b.prepare()
	err := ioctl(b.stream.node, uapi.VidiocQBuf, &b.buf)
	runtime.KeepAlive(b) // the kernel was told its address
	return err
}

// back takes the buffer back from its last holder: to the driver, or, when the stream is over, out of memory.
func (b *slot) back() {
	s := b.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lent--
	if !s.live {
		b.free()
		return
	}
	if err := b.queue(); err != nil && s.bad == nil {
		s.bad = err // told by the next dequeue, which knows what to do
	}
}

func (b *slot) free() {
	for p, unmap := range b.unmap {
		if unmap != nil {
			_ = unmap() // of memory that was mapped: cannot fail
		}
		b.unmap[p], b.maps[p] = nil, nil
	}
}

// stop ends streaming, gives the buffers up so that others can have the device, and unmaps all that nobody holds. The
// node stays open.
func (s *stream) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.live {
		return nil
	}
	s.live = false
	kind := int32(s.kind)
	err := ioctl(s.node, uapi.VidiocStreamOff, &kind)
	for _, b := range s.buffers {
		if b.frame.Held() {
			continue
		}
		b.free()
	}
	req := requestBuffers{Type: s.kind, Memory: uapi.MemoryMmap} // none; mapped ones are orphaned and live on
	err = errors.Join(err, ioctl(s.node, uapi.VidiocReqBufs, &req))
	if gone(err) {
		return nil
	}
	return err
}

// Errors that a stream tells its source about one buffer.
var (
	errNone   = errors.New("no frame yet")
	errDamage = errors.New("the driver marks it as damaged")
	errShort  = errors.New("picture is short")
)

// dequeue takes the next filled buffer. Errors: errNone; errDamage and errShort, with the buffer already given back and
// its sequence number; the kernel's.
func (s *stream) dequeue() (*slot, uint32, error) {
	s.mu.Lock()
	bad := s.bad
	s.mu.Unlock()
	if bad != nil {
		return nil, 0, fmt.Errorf("a buffer cannot be given back: %w", bad)
	}
	s.buf = buffer{Type: s.kind, Memory: uapi.MemoryMmap}
	if s.kind == uapi.BufCaptureMplane {
		s.buf.Mem, s.buf.Length = uint64(uintptr(unsafe.Pointer(&s.planes))), uapi.MaxPlanes
	}
	err := ioctl(s.node, uapi.VidiocDQBuf, &s.buf)
	runtime.KeepAlive(s)
	if errors.Is(err, unix.EAGAIN) {
		return nil, 0, errNone
	}
	if err != nil {
		return nil, 0, err
	}
	if int(s.buf.Index) >= len(s.buffers) {
		return nil, 0, fmt.Errorf("the driver gives buffer %d of %d: %w", s.buf.Index, len(s.buffers), unix.EIO)
	}
	b := s.buffers[s.buf.Index]
	if err := s.fill(b); err != nil {
		return nil, s.buf.Sequence, errors.Join(err, b.queue())
	}
	return b, s.buf.Sequence, nil
}

// fill points the frame's planes at what the driver wrote.
func (s *stream) fill(b *slot) error {
	if s.buf.Flags&uapi.BufFlagError != 0 {
		return errDamage
	}
	f := &b.frame
	f.Planes = [2]sensors.Plane{}
	for p := range s.layout.planes {
		from, to := 0, int(s.buf.BytesUsed)
		if s.kind == uapi.BufCaptureMplane {
			from, to = int(s.planes[p].DataOffset), int(s.planes[p].BytesUsed)
		}
		if to > len(b.maps[p]) || to-from < s.need(p) {
			return errShort
		}
		f.Planes[p] = sensors.Plane{Data: b.maps[p][from:to:to], StrideBytes: s.stride[p]}
	}
	switch {
	case s.format == sensors.MJPEG:
		f.Planes[0].StrideBytes = 0
	case s.format == sensors.NV12 && s.layout.planes == 1:
		all, luma := f.Planes[0].Data, s.stride[0]*s.height
		f.Planes[0].Data = all[:luma:luma]
		f.Planes[1] = sensors.Plane{Data: all[luma:s.need(0):s.need(0)], StrideBytes: s.stride[1]}
	case s.format != sensors.NV12:
		f.Planes[0].Data = f.Planes[0].Data[:s.need(0):s.need(0)]
	}
	f.Width, f.Height, f.Format, f.FullRange = s.width, s.height, s.format, s.full
	f.Label, f.Sensor = "", ""
	return nil
}

// lend begins the loan of b's frame, unless too few buffers would be left to the driver: then b goes back to it.
func (s *stream) lend(b *slot) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lent >= len(s.buffers)-spare {
		return false, b.queue()
	}
	s.lent++
	b.frame.Lend(b.giveOut)
	return true, nil
}

// driverHas is how many buffers are the driver's, filled or not.
func (s *stream) driverHas() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.buffers) - s.lent
}

// changed drains events and says whether the source changed its format.
func (s *stream) changed() bool {
	for range maxEnum {
		var e event
		if ioctl(s.node, uapi.VidiocDQEvent, &e) != nil {
			return false
		}
		if e.Type == uapi.EventSourceChange {
			return true
		}
	}
	return false
}

// export is a DMABUF descriptor of plane p of the buffer that holds f.
func (s *stream) export(f *sensors.Frame, p int) (int, error) {
	for _, b := range s.buffers {
		if &b.frame != f {
			continue
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.live {
			return -1, unix.ENODEV
		}
		e := exportBuffer{Type: s.kind, Index: b.index, Plane: uint32(p), Flags: unix.O_CLOEXEC | unix.O_RDONLY}
		if err := ioctl(s.node, uapi.VidiocExpBuf, &e); err != nil {
			return -1, err
		}
		return int(e.FD), nil
	}
	return -1, errors.New("the frame is not of the present stream")
}

// captured is the driver's time stamp as a time with wall and monotonic clock, and the present time. A driver that stamps with another clock gets
// the present time, and false. A stamp may lie up to a frame ahead: some drivers give a frame out before its scheduled end.
func (s *stream) captured() (at, now time.Time, ok bool) {
	now = time.Now()
	if s.buf.Flags&uapi.BufFlagTimestampMask != uapi.BufFlagTimestampMono {
		return now, now, false
	}
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return now, now, false
	}
	age := time.Duration(ts.Nano() - s.buf.Sec*int64(time.Second) - s.buf.Usec*int64(time.Microsecond))
	ahead := max(time.Millisecond, time.Duration(min(s.interval, 1)*float64(time.Second)))
	if age < -ahead || age > maxAge {
		return now, now, false
	}
	return now.Add(-age), now, true
}

// maxAge is how old a frame can be and still be believed.
const maxAge = time.Minute
