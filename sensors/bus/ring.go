package bus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vigil/sensors"
)

// Places of the layout; see the package comment.
const (
	version     = 1
	headerBytes = 4096
	nameAt      = 36
	nameBytes   = 64
	headAt      = 128
	tooLargeAt  = 136
	closedAt    = 144

	planesAt   = 64
	planeBytes = 32
	messagesAt = 128 // first Arrow message of a slot
	pixelsAt   = 512 // pixels of plane 0
	pageBytes  = 4096
	align      = 64
)

var le = binary.LittleEndian

// Options sizes a ring.
type Options struct {
	Sensor     string // its name, at most 64 bytes
	Slots      int    // 4 to 1024; 0 means 8
	FrameBytes int    // of the largest frame's planes together; 0 means 8 MiB. Pages are taken when they are first written
}

// Stats counts what a ring did.
type Stats struct {
	Frames      uint64 `json:"frames"`       // published
	TooLarge    uint64 `json:"too_large"`    // left out: larger than a slot
	CopiedBytes uint64 `json:"copied_bytes"` // one copy of every published plane
}

// Ring is the writer's end of the shared memory of one sensor. Publish and Close may be called from different goroutines.
type Ring struct {
	sensor     string
	slots      int
	frameBytes int
	stride     int // from slot to slot

	handing sync.Mutex // the descriptor: the way in never holds mu
	shared  *os.File   // nil after Close

	mu     sync.Mutex // Close against Publish; nothing of a reader is ever behind it
	mem    []byte     // nil after Close
	ticket uint64
	copied atomic.Uint64
	frames atomic.Uint64
	large  atomic.Uint64
	shapes messages
}

// New makes a ring. The caller closes it.
func New(o Options) (*Ring, error) {
	if o.Slots == 0 {
		o.Slots = 8
	}
	if o.FrameBytes == 0 {
		o.FrameBytes = 8 << 20
	}
	if o.Slots < 4 || o.Slots > 1024 || o.FrameBytes < 1 || o.FrameBytes > 1<<28 || len(o.Sensor) > nameBytes {
		return nil, fmt.Errorf("bus of sensor %q: %d slots of %d bytes: 4 to 1024 slots of at most %d bytes, a name of at most %d",
			o.Sensor, o.Slots, o.FrameBytes, 1<<28, nameBytes)
	}
	r := &Ring{sensor: o.Sensor, slots: o.Slots, frameBytes: o.FrameBytes}
	r.stride = (pixelsAt + o.FrameBytes + pixelsAt + pageBytes - 1) / pageBytes * pageBytes
	if err := r.share(); err != nil {
		return nil, fmt.Errorf("cannot share the frames of sensor %s: %w", o.Sensor, err)
	}
	r.describe()
	return r, nil
}

// share makes the memory, maps it for the writer and forbids everybody else to write.
func (r *Ring) share() (err error) {
	size := headerBytes + r.slots*r.stride
	fd, err := unix.MemfdCreate("vigil-bus", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return fmt.Errorf("no shared memory: %w", err)
	}
	r.shared = os.NewFile(uintptr(fd), "vigil-bus")
	defer func() {
		if err != nil {
			if r.mem != nil {
				err = errors.Join(err, unix.Munmap(r.mem))
			}
			err = errors.Join(err, r.shared.Close())
		}
	}()
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return fmt.Errorf("no room for %d bytes: %w", size, err)
	}
	if r.mem, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("cannot map %d bytes: %w", size, err)
	}
	if err := unix.Madvise(r.mem, unix.MADV_DONTDUMP); err != nil {
		return fmt.Errorf("cannot keep frames out of dumps: %w", err)
	}
	const seals = unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_FUTURE_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("cannot seal the memory against writing (Linux 5.1 or later can): %w", err)
	}
	// The seal is what keeps others from writing; a descriptor open for reading says so too. A process that is not dumpable
	// may not be allowed to open its own again.
	if ro, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil {
		old := r.shared
		r.shared = ro
		return old.Close()
	}
	return nil
}

// describe writes the header.
func (r *Ring) describe() {
	h := r.mem[:headerBytes]
	copy(h, "VIGILBUS")
	le.PutUint32(h[8:], version)
	le.PutUint32(h[12:], headerBytes)
	le.PutUint32(h[16:], uint32(r.slots))
	le.PutUint32(h[20:], uint32(r.frameBytes))
	le.PutUint64(h[24:], uint64(r.stride))
	le.PutUint32(h[32:], uint32(len(r.sensor)))
	copy(h[nameAt:nameAt+nameBytes], r.sensor)
}

// Stats returns the counts.
func (r *Ring) Stats() Stats {
	return Stats{Frames: r.frames.Load(), TooLarge: r.large.Load(), CopiedBytes: r.copied.Load()}
}

// Publish copies a frame, which the caller holds, into the next slot and reports whether it fitted. It never waits for a
// reader. After Close it does nothing.
func (r *Ring) Publish(f *sensors.Frame) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mem == nil {
		return false
	}
	second := pixelsAt + roundUp(len(f.Planes[0].Data)) + pixelsAt - messagesAt // pixels of plane 1
	if len(f.Planes[0].Data)+len(f.Planes[1].Data) > r.frameBytes || second+len(f.Planes[1].Data) > r.stride {
		atomic.StoreUint64(word(r.mem, tooLargeAt), r.large.Add(1))
		return false
	}
	r.ticket++
	at := headerBytes + int((r.ticket-1)%uint64(r.slots))*r.stride
	slot := r.mem[at : at+r.stride]
	lock := word(slot, 0)
	begin(lock, r.ticket)
	r.fill(slot, f, second)
	finish(lock, r.ticket)
	atomic.StoreUint64(word(r.mem, headAt), r.ticket)
	r.frames.Add(1)
	return true
}

// fill writes descriptor, messages and pixels.
func (r *Ring) fill(slot []byte, f *sensors.Frame, second int) {
	le.PutUint64(slot[8:], f.Seq)
	le.PutUint64(slot[16:], uint64(f.Captured.UnixNano()))
	le.PutUint64(slot[24:], uint64(monotonic(f.Captured)))
	le.PutUint32(slot[32:], uint32(f.Width))
	le.PutUint32(slot[36:], uint32(f.Height))
	le.PutUint32(slot[40:], uint32(f.Format))
	le.PutUint32(slot[44:], flags(f))
	clear(slot[48:messagesAt])
	planes := uint32(1)
	r.plane(slot, f, 0, messagesAt, pixelsAt)
	if len(f.Planes[1].Data) > 0 {
		planes = 2
		r.plane(slot, f, 1, second-(pixelsAt-messagesAt), second)
	}
	le.PutUint32(slot[48:], planes)
}

// plane writes one plane: where its message and pixels are, and both.
func (r *Ring) plane(slot []byte, f *sensors.Frame, i, message, pixels int) {
	p := &f.Planes[i]
	n := copy(slot[pixels:], p.Data)
	r.copied.Add(uint64(n))
	d := slot[planesAt+i*planeBytes:]
	le.PutUint64(d, uint64(message))
	le.PutUint64(d[8:], uint64(pixels))
	le.PutUint64(d[16:], uint64(n))
	stride, rows := p.StrideBytes, f.Height
	if i == 1 {
		rows = f.Height / 2
	}
	if f.Format == sensors.MJPEG {
		stride, rows = n, 1
	}
	le.PutUint32(d[24:], uint32(stride))
	le.PutUint32(d[28:], uint32(rows))
	copy(slot[message:pixels], r.shapes.of(shapeOf(f, i, n)))
}

func flags(f *sensors.Frame) uint32 {
	if f.FullRange {
		return 1
	}
	return 0
}

func roundUp(n int) int { return (n + align - 1) / align * align }

// monotonic is a time on the clock that other processes see as CLOCK_MONOTONIC.
func monotonic(t time.Time) int64 {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return 0
	}
	return now.Nano() - int64(time.Since(t))
}

// Close marks the ring as closed, overwrites what it holds and gives the memory back; readers keep their empty pages until
// they let go.
func (r *Ring) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mem == nil {
		return nil
	}
	atomic.StoreUint64(word(r.mem, closedAt), 1)
	used := min(r.ticket, uint64(r.slots)) // the other slots were never written, and have no pages
	clear(r.mem[headerBytes : headerBytes+int(used)*r.stride])
	r.handing.Lock()
	defer r.handing.Unlock()
	err := errors.Join(unix.Munmap(r.mem), r.shared.Close())
	r.mem, r.shared = nil, nil
	return err
}
