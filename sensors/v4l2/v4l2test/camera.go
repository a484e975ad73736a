// Package v4l2test plays the kernel's side of cameras: devices that stream, fail, come and go, and the sysfs in which they are
// found. It is imported from tests only.
//
// Promises: the driver is the real one, down to the structures of its ioctls; only open, ioctl, mmap and poll are played. A
// Camera fills the buffers that the driver gave it, and touches none that it lent. What it did is counted. All of it is safe
// for concurrent use; whoever changes the fields of a Camera that is in use holds its lock. Nothing runs by itself.
package v4l2test

import (
	"encoding/binary"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"vigil/sensors/v4l2/internal/uapi"
)

// Camera is a device without a kernel. It fills a queued buffer whenever it is polled, or at its Interval. Its faults are
// fields.
type Camera struct {
	sync.Mutex

	Mplane   bool
	Code     string // of its only format
	W, H     int
	Buffers  int           // that it gives at most
	Length   int           // of a plane, 0 for what a picture needs
	Rate     uint32        // that it claims
	Interval time.Duration // between frames; 0: as fast as it is polled
	Picture  [2][]byte     // what the planes show; the sequence number where there is nothing

	Script  []Fill              // of the next frames; then good ones
	Errs    map[uintptr][]error // of the next calls of an ioctl
	Events  int                 // source changes to tell
	Quiet   bool
	Trouble bool
	Mono    bool            // time stamps are of the monotonic clock
	Refuses map[uint32]bool // controls that cannot be set

	Mem      [][2][]byte
	Queued   []uint32
	On       bool
	Mapped   int
	Closed   bool
	Opens    int
	Controls map[uint32]int32

	busy bool // somebody else streams
	seq  uint32
	next time.Time // of the next frame, with an Interval
}

// Fill is how one buffer is filled.
type Fill struct {
	Flags uint32
	Short bool
	Empty bool
	Skip  uint32 // sequence numbers that are missing before it
	Index uint32 // 1 + a wrong index
	None  bool   // not yet: the next look finds the next Fill
}

// Damaged is the flag of a buffer that the driver marks, for Fill.
const Damaged = uapi.BufFlagError

// Requests whose errors are played.
var (
	SetFormat  = uapi.VidiocSFmt
	GetBuffers = uapi.VidiocReqBufs
	Queue      = uapi.VidiocQBuf
	Dequeue    = uapi.VidiocDQBuf
	StreamOn   = uapi.VidiocStreamOn
	StreamOff  = uapi.VidiocStreamOff
)

// NewCamera is a good one: YUYV, 64 x 48 pixels.
func NewCamera() *Camera {
	return &Camera{
		Code: "YUYV", W: 64, H: 48, Buffers: 32, Mono: true, Errs: map[uintptr][]error{}, Controls: map[uint32]int32{}, Refuses: map[uint32]bool{},
	}
}

// Claim makes another process stream from the camera, or end that.
func (k *Camera) Claim(busy bool) {
	k.Lock()
	defer k.Unlock()
	k.busy = busy
}

// Fail makes the next n calls of a request fail.
func (k *Camera) Fail(request uintptr, err error, n int) {
	k.Lock()
	defer k.Unlock()
	for range n {
		k.Errs[request] = append(k.Errs[request], err)
	}
}

// Show changes what the planes show. The pictures are borrowed.
func (k *Camera) Show(planes ...[]byte) {
	k.Lock()
	defer k.Unlock()
	k.Picture = [2][]byte{}
	copy(k.Picture[:], planes)
}

// Speak ends being quiet.
func (k *Camera) Speak() {
	k.Lock()
	defer k.Unlock()
	k.Quiet = false
}

// Owns says whether memory lies in a buffer of the camera: a frame of it that does was not copied.
func (k *Camera) Owns(data []byte) bool {
	k.Lock()
	defer k.Unlock()
	if len(data) == 0 {
		return false
	}
	at := uintptr(unsafe.Pointer(&data[0]))
	for i := range k.Mem {
		for _, m := range k.Mem[i] {
			if len(m) > 0 {
				if begin := uintptr(unsafe.Pointer(&m[0])); at >= begin && at+uintptr(len(data)) <= begin+uintptr(len(m)) {
					return true
				}
			}
		}
	}
	return false
}

func (k *Camera) planes() int {
	if k.Code == "NM12" {
		return 2
	}
	return 1
}

func (k *Camera) size(p int) int {
	switch k.Code {
	case "YUYV":
		return 2 * k.W * k.H
	case "NV12":
		return k.W * k.H * 3 / 2
	case "NM12":
		return k.W * k.H / (1 + p)
	case "RGB3":
		return 3 * k.W * k.H
	}
	return k.W * k.H
}

// Ioctl is ioctl(2).
func (k *Camera) Ioctl(request uintptr, arg unsafe.Pointer) error {
	k.Lock()
	defer k.Unlock()
	if k.Closed {
		return unix.EBADF
	}
	if list := k.Errs[request]; len(list) > 0 {
		k.Errs[request] = list[1:]
		if list[0] != nil {
			return list[0]
		}
	}
	if k.busy && (request == uapi.VidiocSFmt || request == uapi.VidiocReqBufs || request == uapi.VidiocStreamOn) {
		return unix.EBUSY
	}
	return k.obey(request, arg)
}

func (k *Camera) obey(request uintptr, arg unsafe.Pointer) error {
	switch request {
	case uapi.VidiocQueryCap:
		c := (*uapi.Capability)(arg)
		copy(c.Driver[:], "fake")
		c.Capabilities = uapi.CapStreaming | uapi.CapCapture
		if k.Mplane {
			c.Capabilities = uapi.CapDeviceCaps
			c.DeviceCaps = uapi.CapStreaming | uapi.CapCaptureMplane
		}
	case uapi.VidiocEnumFmt:
		if d := (*uapi.FmtDesc)(arg); d.Index == 0 {
			d.PixelFormat = uapi.FourCC(k.Code)
			return nil
		}
		return unix.EINVAL
	case uapi.VidiocSFmt:
		k.setFormat((*uapi.Format)(arg))
	case uapi.VidiocGParm, uapi.VidiocSParm:
		p := (*uapi.StreamParm)(arg)
		p.Capability = uapi.CapTimePerFrame
		p.Numerator, p.Denominator = 1, k.Rate
	case uapi.VidiocReqBufs:
		k.request((*uapi.RequestBuffers)(arg))
	case uapi.VidiocQueryBuf:
		k.query((*uapi.Buffer)(arg))
	case uapi.VidiocQBuf:
		k.Queued = append(k.Queued, (*uapi.Buffer)(arg).Index)
	case uapi.VidiocDQBuf:
		return k.dequeue((*uapi.Buffer)(arg))
	case uapi.VidiocStreamOn:
		k.On, k.seq, k.next = true, 0, time.Now()
	case uapi.VidiocStreamOff:
		k.On, k.Queued = false, nil
	case uapi.VidiocSCtrl:
		c := (*uapi.Control)(arg)
		if k.Refuses[c.ID] {
			return unix.EINVAL
		}
		k.Controls[c.ID] = c.Value
	case uapi.VidiocDQEvent:
		if k.Events == 0 {
			return unix.ENOENT
		}
		k.Events--
		(*uapi.Event)(arg).Type = uapi.EventSourceChange
	case uapi.VidiocSubscribeEvent:
	case uapi.VidiocExpBuf:
		(*uapi.ExportBuffer)(arg).FD = 77
	default:
		return unix.ENOTTY
	}
	return nil
}

func (k *Camera) setFormat(f *uapi.Format) {
	if k.Mplane {
		p := f.Mplane()
		p.PixelFormat, p.Width, p.Height, p.NumPlanes = uapi.FourCC(k.Code), uint32(k.W), uint32(k.H), uint8(k.planes())
		return
	}
	p := f.Pix()
	p.PixelFormat, p.Width, p.Height = uapi.FourCC(k.Code), uint32(k.W), uint32(k.H)
}

func (k *Camera) request(r *uapi.RequestBuffers) {
	r.Count = min(r.Count, uint32(k.Buffers))
	k.Mem, k.Queued = nil, nil
	for range r.Count {
		var m [2][]byte
		for p := range k.planes() {
			n := k.Length
			if n == 0 {
				n = max(k.size(p), len(k.Picture[p]))
			}
			m[p] = make([]byte, n)
		}
		k.Mem = append(k.Mem, m)
	}
}

func (k *Camera) query(b *uapi.Buffer) {
	if !k.Mplane {
		b.Length, b.Mem = uint32(len(k.Mem[b.Index][0])), uint64(b.Index)<<12
		return
	}
	planes := (*[uapi.MaxPlanes]uapi.Plane)(*(*unsafe.Pointer)(unsafe.Pointer(&b.Mem)))
	for p := range k.planes() {
		planes[p].Length, planes[p].Mem = uint32(len(k.Mem[b.Index][p])), uint64(b.Index)<<12|uint64(p)
	}
}

// filled says whether a frame is there to be taken.
func (k *Camera) filled() bool {
	return k.On && !k.Quiet && len(k.Queued) > 0 && (k.Interval == 0 || !time.Now().Before(k.next))
}

// age is how long before it is dequeued a frame of a camera without an Interval was captured.
const age = 5 * time.Millisecond

func (k *Camera) dequeue(b *uapi.Buffer) error {
	if !k.filled() {
		return unix.EAGAIN
	}
	var f Fill
	if len(k.Script) > 0 {
		f, k.Script = k.Script[0], k.Script[1:]
	}
	if f.None {
		return unix.EAGAIN
	}
	i := k.Queued[0]
	k.Queued = k.Queued[1:]
	k.seq += f.Skip
	captured := age
	if k.Interval > 0 {
		now := time.Now()
		for k.next.Add(k.Interval).Before(now) { // nobody took it: it was lost
			k.next, k.seq = k.next.Add(k.Interval), k.seq+1
		}
		captured, k.next = now.Sub(k.next), k.next.Add(k.Interval)
	}
	b.Index, b.Sequence, b.Flags = i, k.seq, f.Flags
	k.seq++
	if err := k.stamp(b, captured); err != nil {
		return err
	}
	for p := range k.planes() {
		used := k.size(p)
		if k.Code == "MJPG" && k.Picture[p] != nil {
			used = len(k.Picture[p])
		}
		switch {
		case f.Short:
			used--
		case f.Empty:
			used = 0
		}
		if k.Picture[p] != nil {
			copy(k.Mem[i][p], k.Picture[p])
		} else {
			binary.LittleEndian.PutUint32(k.Mem[i][p], b.Sequence)
		}
		if k.Mplane {
			(*[uapi.MaxPlanes]uapi.Plane)(*(*unsafe.Pointer)(unsafe.Pointer(&b.Mem)))[p].BytesUsed = uint32(used)
		} else {
			b.BytesUsed = uint32(used)
		}
	}
	if f.Index > 0 {
		b.Index = f.Index - 1
	}
	return nil
}

// stamp says that the frame was captured so long ago.
func (k *Camera) stamp(b *uapi.Buffer, ago time.Duration) error {
	if !k.Mono {
		return nil
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return err
	}
	b.Flags |= uapi.BufFlagTimestampMono
	at := ts.Nano() - int64(ago)
	b.Sec, b.Usec = at/1e9, at%1e9/1e3
	return nil
}

// Map is mmap(2) of a buffer.
func (k *Camera) Map(offset int64, lengthBytes int) ([]byte, func() error, error) {
	k.Lock()
	defer k.Unlock()
	if offset>>12 >= int64(len(k.Mem)) {
		return nil, nil, unix.EINVAL
	}
	k.Mapped++
	return k.Mem[offset>>12][offset&1][:lengthBytes], k.unmap, nil
}

func (k *Camera) unmap() error {
	k.Lock()
	defer k.Unlock()
	k.Mapped--
	return nil
}

// Wait is poll(2).
func (k *Camera) Wait(timeout time.Duration) (uapi.Ready, error) {
	for end := time.Now().Add(timeout); ; {
		k.Lock()
		r := uapi.Ready{Frame: k.filled(), Event: k.Events > 0, Trouble: k.Trouble || len(k.Errs[uapi.VidiocDQBuf]) > 0}
		paced := k.Interval > 0
		k.Unlock()
		if r.Frame || r.Event || r.Trouble || !paced || !time.Now().Before(end) {
			if !r.Frame && !r.Event {
				time.Sleep(min(timeout, time.Millisecond))
			}
			return r, nil
		}
		time.Sleep(time.Millisecond)
	}
}

// Close is close(2).
func (k *Camera) Close() error {
	k.Lock()
	defer k.Unlock()
	k.Closed = true
	return nil
}

func (k *Camera) opened() {
	k.Lock()
	defer k.Unlock()
	k.Closed = false
	k.Opens++
}

// vanish makes every call fail as for a device that is gone.
func (k *Camera) vanish() {
	k.Lock()
	defer k.Unlock()
	gone := []error{unix.ENODEV, unix.ENODEV, unix.ENODEV, unix.ENODEV, unix.ENODEV, unix.ENODEV}
	for _, r := range []uintptr{Dequeue, Queue, StreamOff, GetBuffers} {
		k.Errs[r] = gone
	}
}
