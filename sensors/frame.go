package sensors

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Format is the layout of the pixels of a Frame.
type Format uint8

// Pixel layouts, as V4L2 names them. All but MJPEG can be read by the kernels as they are.
const (
	Gray8 Format = iota + 1 // 8-bit luminance or infra-red
	RGB24                   // 3 bytes a pixel, R first
	NV12                    // Y plane, then interleaved U,V at half resolution
	YUYV                    // Y0 U Y1 V
	MJPEG                   // one JPEG picture; plane 0 holds the compressed bytes
)

// String returns the name used in logs and configuration.
func (f Format) String() string {
	switch f {
	case Gray8:
		return "Gray8"
	case RGB24:
		return "RGB24"
	case NV12:
		return "NV12"
	case YUYV:
		return "YUYV"
	case MJPEG:
		return "MJPEG"
	}
	return fmt.Sprintf("Format(%d)", uint8(f))
}

// Plane is one plane of a frame's pixels.
type Plane struct {
	Data        []byte
	StrideBytes int // distance between rows
}

// Frame is one picture of a sensor, borrowed from whoever captured it. Holders read it only. Every holder calls Release
// exactly once; Retain adds a holder. After the last Release the planes are somebody else's.
type Frame struct {
	Sensor        string    // name of the sensor in the configuration
	Label         string    // what was captured, where the source knows it (a file's name); never a person's name in production
	Seq           uint64    // counts captured frames of this source from 1; a gap is a lost frame
	Captured      time.Time // wall and monotonic clock, at capture
	Arrived       time.Time // when the source had it; zero where that is no other time
	Copies        int       // of the pixels between the driver's buffer and here: none of a lent frame, one of a pooled one that a source filled
	Width, Height int       // pixels
	Format        Format
	FullRange     bool // YUV luma spans 0..255 rather than 16..235
	Planes        [2]Plane

	holders atomic.Int32
	buf     []byte
	pool    *Pool
	back    func(*Frame) // of a lent frame, instead of pool
}

// Lend begins a loan of driver memory: the frame, which the driver made and nobody holds, gets one holder, and back is
// called at the last Release, on the goroutine of the last holder. The driver sets everything else and must not touch the
// frame between the two. It panics while somebody holds the frame.
func (f *Frame) Lend(back func(*Frame)) {
	if !f.holders.CompareAndSwap(0, 1) {
		panic("sensors: frame lent while somebody holds it")
	}
	f.back, f.Copies = back, 0
}

// Held says whether somebody holds the frame.
func (f *Frame) Held() bool { return f.holders.Load() > 0 }

// Retain adds a holder. Only somebody who holds the frame may call it.
func (f *Frame) Retain() {
	if f.holders.Add(1) <= 1 {
		panic("sensors: frame retained after its last release")
	}
}

// Release gives up one hold; the last one returns the memory to its owner.
func (f *Frame) Release() {
	switch n := f.holders.Add(-1); {
	case n < 0:
		panic("sensors: frame released more often than held")
	case n == 0 && f.back != nil:
		f.back(f)
	case n == 0 && f.pool != nil:
		f.pool.put(f)
	}
}

// ErrUnplugged means that the device is gone for now. The source stays usable and delivers again when it comes back.
var ErrUnplugged = errors.New("sensor is unplugged")

// Source hands out the frames of one sensor.
type Source interface {
	// Next blocks for the next frame, which the caller must Release. It returns ErrUnplugged once when the device goes
	// (the call after it waits for the device), io.EOF at the end of a recording, os.ErrClosed after Close, or the
	// context's error. A *SkippedError tells of broken input that was passed over; the next call goes on behind it.
	Next(ctx context.Context) (*Frame, error)
	// Close frees the device and wakes a blocked Next. Frames already handed out stay valid until released.
	Close() error
}

// SkippedError reports one broken picture that a source passed over. The stream goes on.
type SkippedError struct {
	Name string // what was skipped: a file, or a stream and its frame number
	Err  error  // why
}

func (e *SkippedError) Error() string { return fmt.Sprintf("skipped %s: %v", e.Name, e.Err) }

// Unwrap returns the reason.
func (e *SkippedError) Unwrap() error { return e.Err }

// Pool is a fixed number of frames whose memory is reused. When all are held, Get blocks: the bound on a source's memory.
// No picture stays behind in it after Close.
type Pool struct {
	free   chan *Frame
	size   int
	once   sync.Once
	closed chan struct{}
}

// NewPool makes a pool of n frames. Their memory is allocated at first use and grows to the largest frame seen.
func NewPool(n int) *Pool {
	p := &Pool{free: make(chan *Frame, n), size: n, closed: make(chan struct{})}
	for range n {
		p.free <- &Frame{pool: p}
	}
	return p
}

// Get returns a frame with one holder and a buffer of at least sizeBytes, its planes and labels cleared. It blocks until
// a frame is free, the context ends or the pool is closed; then it returns the context's error or os.ErrClosed.
func (p *Pool) Get(ctx context.Context, sizeBytes int) (*Frame, error) {
	select {
	case <-p.closed:
		return nil, os.ErrClosed
	default:
	}
	select {
	case f := <-p.free:
		return f.reset(sizeBytes), nil
	default:
	}
	select {
	case f := <-p.free:
		return f.reset(sizeBytes), nil
	case <-p.closed:
		return nil, os.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// put takes a frame back. The pool is looked at after that, so that a Close at the same time cannot miss the frame.
func (p *Pool) put(f *Frame) {
	p.free <- f
	select {
	case <-p.closed:
		p.Wipe()
	default:
	}
}

// Close wakes whoever waits in Get, lets nobody have a frame any more, and overwrites the memory of all frames: now of
// those that are free, of the others at their last Release.
func (p *Pool) Close() {
	p.once.Do(func() { close(p.closed) })
	p.Wipe()
}

func (f *Frame) reset(sizeBytes int) *Frame {
	if cap(f.buf) < sizeBytes {
		clear(f.buf) // the collector takes it, and whoever gets the memory next must not find a picture
		f.buf = make([]byte, sizeBytes)
	}
	f.buf = f.buf[:cap(f.buf)]
	f.Sensor, f.Label, f.FullRange, f.Arrived, f.Copies = "", "", false, time.Time{}, 1
	f.Planes = [2]Plane{}
	f.holders.Store(1)
	return f
}

// Buffer is the pooled memory of the frame, for the driver that fills it.
func (f *Frame) Buffer() []byte { return f.buf }

// InUse is the number of frames that somebody holds.
func (p *Pool) InUse() int { return p.size - len(p.free) }

// Wipe overwrites the memory of every free frame.
func (p *Pool) Wipe() {
	for range p.size {
		select {
		case f := <-p.free:
			clear(f.buf)
			p.free <- f
		default:
			return
		}
	}
}
