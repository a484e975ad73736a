package v4l2

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"vigil/sensors"
)

// fake is a camera without a kernel: it fills queued buffers whenever it is polled. Its faults are fields.
type fake struct {
	mu      sync.Mutex
	mplane  bool
	code    string
	w, h    int
	buffers int // that it gives at most
	length  int // of a plane, 0 for what a picture needs
	rate    uint32

	script  []fill // of the next frames; then good ones
	errs    map[uintptr][]error
	events  int // source changes to tell
	quiet   bool
	trouble bool
	mono    bool

	mem     [][2][]byte
	queued  []uint32
	held    map[uint32]bool // dequeued
	on      bool
	seq     uint32
	opens   int
	mapped  int
	closed  bool
	control map[uint32]int32
}

// fill is how one buffer is filled.
type fill struct {
	flags uint32
	short bool
	empty bool
	skip  uint32 // sequence numbers that are missing before it
	index uint32 // 1 + a wrong index
	none  bool   // not yet: the next look finds the next fill
}

func newFake() *fake {
	return &fake{code: "YUYV", w: 64, h: 48, buffers: 32, mono: true, errs: map[uintptr][]error{}, control: map[uint32]int32{}}
}

func (k *fake) planes() int {
	if k.code == "NM12" {
		return 2
	}
	return 1
}

func (k *fake) size(p int) int {
	switch k.code {
	case "YUYV":
		return 2 * k.w * k.h
	case "NV12":
		return k.w * k.h * 3 / 2
	case "NM12":
		return k.w * k.h / (1 + p)
	case "RGB3":
		return 3 * k.w * k.h
	}
	return k.w * k.h
}

func (k *fake) Ioctl(request uintptr, arg unsafe.Pointer) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return unix.EBADF
	}
	if list := k.errs[request]; len(list) > 0 {
		k.errs[request] = list[1:]
		if list[0] != nil {
			return list[0]
		}
	}
	switch request {
	case vidiocQueryCap:
		c := (*capability)(arg)
		copy(c.Driver[:], "fake")
		c.Capabilities = capStreaming | capCapture
		if k.mplane {
			c.Capabilities = capDeviceCaps
			c.DeviceCaps = capStreaming | capCaptureMplane
		}
	case vidiocEnumFmt:
		if d := (*fmtDesc)(arg); d.Index == 0 {
			d.PixelFormat = fourcc(k.code)
			return nil
		}
		return unix.EINVAL
	case vidiocSFmt:
		k.setFormat((*format)(arg))
	case vidiocGParm, vidiocSParm:
		p := (*streamParm)(arg)
		p.Capability = capTimePerFrame
		p.Numerator, p.Denominator = 1, k.rate
	case vidiocReqBufs:
		k.request((*requestBuffers)(arg))
	case vidiocQueryBuf:
		k.query((*buffer)(arg))
	case vidiocQBuf:
		b := (*buffer)(arg)
		k.queued = append(k.queued, b.Index)
		delete(k.held, b.Index)
	case vidiocDQBuf:
		return k.dequeue((*buffer)(arg))
	case vidiocStreamOn:
		k.on, k.seq = true, 0
	case vidiocStreamOff:
		k.on, k.queued = false, nil
	case vidiocSCtrl:
		c := (*control)(arg)
		if c.ID == controlIDs["focus"] {
			return unix.EINVAL
		}
		k.control[c.ID] = c.Value
	case vidiocDQEvent:
		if k.events == 0 {
			return unix.ENOENT
		}
		k.events--
		(*event)(arg).Type = eventSourceChange
	case vidiocSubscribeEvent:
	case vidiocExpBuf:
		(*exportBuffer)(arg).FD = 77
	default:
		return unix.ENOTTY
	}
	return nil
}

func (k *fake) setFormat(f *format) {
	if k.mplane {
		p := f.mplane()
		p.PixelFormat, p.Width, p.Height, p.NumPlanes = fourcc(k.code), uint32(k.w), uint32(k.h), uint8(k.planes())
		return
	}
	p := f.pix()
	p.PixelFormat, p.Width, p.Height = fourcc(k.code), uint32(k.w), uint32(k.h)
}

func (k *fake) request(r *requestBuffers) {
	r.Count = min(r.Count, uint32(k.buffers))
	k.mem, k.queued, k.held = nil, nil, map[uint32]bool{}
	for range r.Count {
		var m [2][]byte
		for p := range k.planes() {
			n := k.length
			if n == 0 {
				n = k.size(p)
			}
			m[p] = make([]byte, n)
		}
		k.mem = append(k.mem, m)
	}
}

func (k *fake) query(b *buffer) {
	if !k.mplane {
		b.Length, b.Mem = uint32(len(k.mem[b.Index][0])), uint64(b.Index)<<12
		return
	}
	planes := (*[maxPlanes]plane)(*(*unsafe.Pointer)(unsafe.Pointer(&b.Mem)))
	for p := range k.planes() {
		planes[p].Length, planes[p].Mem = uint32(len(k.mem[b.Index][p])), uint64(b.Index)<<12|uint64(p)
	}
}

func (k *fake) dequeue(b *buffer) error {
	if !k.on || k.quiet || len(k.queued) == 0 {
		return unix.EAGAIN
	}
	var f fill
	if len(k.script) > 0 {
		f, k.script = k.script[0], k.script[1:]
	}
	if f.none {
		return unix.EAGAIN
	}
	i := k.queued[0]
	k.queued = k.queued[1:]
	k.held[i] = true
	k.seq += f.skip
	b.Index, b.Sequence, b.Flags = i, k.seq, f.flags
	k.seq++
	if k.mono {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			return err
		}
		b.Flags |= bufFlagTimestampMono
		at := ts.Nano() - int64(5*time.Millisecond)
		b.Sec, b.Usec = at/1e9, at%1e9/1e3
	}
	for p := range k.planes() {
		used := k.size(p)
		if f.short {
			used--
		}
		if f.empty {
			used = 0
		}
		binary.LittleEndian.PutUint32(k.mem[i][p], b.Sequence)
		if k.mplane {
			(*[maxPlanes]plane)(*(*unsafe.Pointer)(unsafe.Pointer(&b.Mem)))[p].BytesUsed = uint32(used)
		} else {
			b.BytesUsed = uint32(used)
		}
	}
	if f.index > 0 {
		b.Index = f.index - 1
	}
	return nil
}

func (k *fake) Map(offset int64, lengthBytes int) ([]byte, func() error, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if offset>>12 >= int64(len(k.mem)) {
		return nil, nil, unix.EINVAL
	}
	k.mapped++
	return k.mem[offset>>12][offset&1][:lengthBytes], func() error { k.mapped--; return nil }, nil
}

func (k *fake) Wait(timeout time.Duration) (ready, error) {
	k.mu.Lock()
	r := ready{frame: k.on && !k.quiet && len(k.queued) > 0, event: k.events > 0, trouble: k.trouble}
	k.mu.Unlock()
	if !r.frame && !r.event {
		time.Sleep(min(timeout, time.Millisecond))
	}
	return r, nil
}

func (k *fake) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	return nil
}

// bench is a host with a sysfs of its own. Cameras are put in and taken out.
type bench struct {
	t       *testing.T
	host    host
	cameras map[string]*fake // by node
	openErr error
	opens   int
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, cameras: map[string]*fake{}}
	b.host = host{sys: t.TempDir(), dev: "/dev", open: b.open}
	return b
}

func (b *bench) open(path string) (node, uint64, error) {
	b.opens++
	k := b.cameras[path]
	if b.openErr != nil || k == nil {
		if b.openErr == nil {
			return nil, 0, unix.ENODEV
		}
		return nil, 0, b.openErr
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = false
	k.opens++
	var n int
	if _, err := fmt.Sscanf(path, "/dev/video%d", &n); err != nil {
		return nil, 0, err
	}
	return k, unix.Mkdev(81, uint32(n)), nil
}

// plug puts a USB camera into a port.
func (b *bench) plug(number int, port, usb, serial, card string, k *fake) {
	b.t.Helper()
	pci := filepath.Join(b.host.sys, "devices/pci0000:00/0000:00:14.0")
	device := filepath.Join(pci, "usb1/1-"+port)
	face := filepath.Join(device, "1-"+port+":1.0")
	node := filepath.Join(face, fmt.Sprintf("video4linux/video%d", number))
	files := map[string]string{
		node + "/dev": fmt.Sprintf("81:%d\n", number), node + "/name": card + "\n", node + "/index": "0\n",
		device + "/idVendor": usb[:4] + "\n", device + "/idProduct": usb[5:] + "\n", device + "/serial": serial + "\n",
	}
	for path, text := range files {
		b.must(os.MkdirAll(filepath.Dir(path), 0o700))
		b.must(os.WriteFile(path, []byte(text), 0o600))
	}
	for dir, bus := range map[string]string{pci: "pci", face: "usb", device: "usb", filepath.Dir(device): "usb"} {
		if _, err := os.Lstat(dir + "/subsystem"); err != nil {
			b.must(os.Symlink("/sys/bus/"+bus, dir+"/subsystem"))
		}
	}
	b.must(os.Symlink(face, node+"/device"))
	class := filepath.Join(b.host.sys, "class/video4linux")
	b.must(os.MkdirAll(class, 0o700))
	b.must(os.Symlink(node, filepath.Join(class, fmt.Sprintf("video%d", number))))
	b.cameras[fmt.Sprintf("/dev/video%d", number)] = k
}

// unplug takes it out; the kernel then answers ENODEV.
func (b *bench) unplug(number int) {
	b.t.Helper()
	class := filepath.Join(b.host.sys, "class/video4linux", fmt.Sprintf("video%d", number))
	real, err := filepath.EvalSymlinks(class)
	b.must(err)
	b.must(os.RemoveAll(filepath.Dir(filepath.Dir(filepath.Dir(real)))))
	b.must(os.Remove(class))
	name := fmt.Sprintf("/dev/video%d", number)
	k := b.cameras[name]
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range []uintptr{vidiocDQBuf, vidiocQBuf, vidiocStreamOff, vidiocReqBufs} {
		k.errs[r] = []error{unix.ENODEV, unix.ENODEV, unix.ENODEV, unix.ENODEV, unix.ENODEV, unix.ENODEV}
	}
	delete(b.cameras, name)
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

const porch = "pci-0000:00:14.0-usb-0:1:1.0-video-index0"

// source opens the camera in port 1 with these changes.
func (b *bench) source(change func(*Options)) *Source {
	b.t.Helper()
	o := Options{Name: "porch", Pin: Pin{Place: porch}, Timeout: 20 * time.Millisecond}
	if change != nil {
		change(&o)
	}
	s, err := b.host.openSource(o)
	b.must(err)
	b.t.Cleanup(func() { b.must(s.Close()) })
	return s
}

func mustNext(t *testing.T, s sensors.Source) *sensors.Frame {
	t.Helper()
	f, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return f
}
