package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf16"

	"golang.org/x/sys/unix"

	"vigil/sensors"
	"vigil/sensors/v4l2"
)

// A USB camera made of gadgetfs on dummy_hcd. usb_f_uvc cannot be it: it streams over isochronous endpoints only, which
// dummy_hcd does not carry; this one streams over a bulk endpoint (USB Video Class 1.0, 2.4.3.2.1), which uvcvideo takes as
// well. Its pictures carry a counter, so that a lost or torn one shows.

// Sizes of its pictures in pixels, and their rate.
const (
	uvcWidth, uvcHeight = 320, 240
	uvcRate             = 15
	maxPayload          = 16384 // bytes with the header: what uvcvideo puts into one transfer
	uvcProduct          = "Vigil Lab Camera"
	uvcVendorID         = 0x1d6b
	uvcProductID        = 0x0102
)

// gadget is one plugged-in camera.
type gadget struct {
	format sensors.Format
	serial string
	ep0    int
	probe  [26]byte
	stop   chan struct{}
	done   sync.WaitGroup
	thread atomic.Int32  // that feeds
	fed    chan struct{} // closed when it does no more
	made   atomic.Uint64 // pictures handed to the bus whole
	failed atomic.Value  // error

	sending atomic.Bool
	feedMu  sync.Mutex
	ep      int // -1 without
	commit  chan struct{}
}

const gadgetDir = "/dev/gadget"

// plugIn makes the camera appear on the bus.
func plugIn(f sensors.Format, serial string) (*gadget, error) {
	if _, err := os.Stat(gadgetDir); err != nil {
		if err := errors.Join(os.Mkdir(gadgetDir, 0o700), unix.Mount("gadgetfs", gadgetDir, "gadgetfs", 0, "")); err != nil {
			return nil, fmt.Errorf("cannot mount gadgetfs: %w", err)
		}
	}
	files, err := filepath.Glob(gadgetDir + "/dummy_udc*")
	if err != nil || len(files) != 1 {
		return nil, fmt.Errorf("gadgetfs names the controllers %v: %w", files, err)
	}
	fd, err := unix.Open(files[0], unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open the controller: %w", err)
	}
	g := &gadget{format: f, serial: serial, ep0: fd, stop: make(chan struct{}), ep: -1, commit: make(chan struct{}, 1), fed: make(chan struct{})}
	g.answer()
	msg := binary.LittleEndian.AppendUint32(nil, 0)
	msg = append(msg, configuration(f, 64)...)
	msg = append(msg, configuration(f, 512)...)
	msg = append(msg, deviceDescriptor()...)
	if _, err := unix.Write(fd, msg); err != nil {
		return nil, errors.Join(fmt.Errorf("gadgetfs does not take the descriptors: %w", err), unix.Close(fd))
	}
	g.done.Go(g.control)
	g.done.Go(g.feed)
	return g, nil
}

// appears says whether the host has made a video device of it, in the time that one request may take to time out.
func (g *gadget) appears() bool {
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		all, err := v4l2.List()
		if err == nil && slices.ContainsFunc(all, func(id v4l2.Identity) bool { return id.Serial == g.serial }) {
			return true
		}
	}
	return false
}

// plugInSurely plugs in again what the host does not take: gadgetfs loses a control request now and then. failed counts
// that.
func plugInSurely(f sensors.Format, serial string, failed *int) (*gadget, error) {
	for range 5 {
		g, err := plugIn(f, serial)
		if err != nil || g.appears() {
			return g, err
		}
		*failed++
		if err := g.unplug(); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("the host takes no camera of gadgetfs")
}

// unplug takes the camera off the bus and waits until nothing of it runs.
func (g *gadget) unplug() error {
	close(g.stop)
	g.interrupt()
	g.done.Wait()
	err := unix.Close(g.ep0)
	if failed, ok := g.failed.Load().(error); ok {
		err = errors.Join(err, failed)
	}
	return err
}

// interrupt ends the feeding. A write that waits for the host must go first: gadgetfs cannot be closed over it.
func (g *gadget) interrupt() {
	for {
		select {
		case <-g.fed:
			return
		case <-time.After(2 * time.Millisecond):
			if id := g.thread.Load(); id != 0 {
				_ = unix.Tgkill(os.Getpid(), int(id), unix.SIGURG) // a signal that Go's runtime ignores
			}
		}
	}
}

func (g *gadget) stopped() bool {
	select {
	case <-g.stop:
		return true
	default:
		return false
	}
}

func deviceDescriptor() []byte {
	return []byte{
		18, 1, 0, 2, 0xef, 2, 1, 64, uvcVendorID & 0xff, uvcVendorID >> 8, uvcProductID & 0xff, uvcProductID >> 8, 0, 1, 0, 2, 1, 1,
	}
}

// frameBytes is the size of a picture; for MJPEG the most that one has.
func frameBytes(f sensors.Format) int {
	switch f {
	case sensors.YUYV, sensors.MJPEG:
		return 2 * uvcWidth * uvcHeight
	case sensors.NV12:
		return uvcWidth * uvcHeight * 3 / 2
	}
	return uvcWidth * uvcHeight
}

// configuration is a camera with one format of one size over one bulk endpoint.
func configuration(f sensors.Format, packet uint16) []byte {
	le := binary.LittleEndian
	frame := []byte{30, 0x24, 5, 1, 0}
	frame = le.AppendUint16(frame, uvcWidth)
	frame = le.AppendUint16(frame, uvcHeight)
	frame = le.AppendUint32(frame, uint32(8*uvcRate*frameBytes(f)))
	frame = le.AppendUint32(frame, uint32(8*uvcRate*frameBytes(f)))
	frame = le.AppendUint32(frame, uint32(frameBytes(f)))
	frame = le.AppendUint32(frame, 10_000_000/uvcRate)
	frame = append(frame, 1)
	frame = le.AppendUint32(frame, 10_000_000/uvcRate)
	var format []byte
	if f == sensors.MJPEG {
		frame[2] = 7
		format = []byte{11, 0x24, 6, 1, 1, 1, 1, 0, 0, 0, 0}
	} else {
		code := map[sensors.Format]string{sensors.YUYV: "YUY2", sensors.NV12: "NV12", sensors.Gray8: "Y800"}[f]
		bits := byte(8 * frameBytes(f) / (uvcWidth * uvcHeight))
		format = append([]byte{27, 0x24, 4, 1, 1}, code...)
		format = append(format, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71, bits, 1, 0, 0, 0, 0)
	}
	input := []byte{14, 0x24, 1, 1, 0, 0, 0x81, 0, 2, 0, 0, 0, 1, 0}
	le.PutUint16(input[4:], uint16(len(input)+len(format)+len(frame)))

	c := []byte{9, 2, 0, 0, 2, 1, 0, 0xc0, 50}
	c = append(c, 8, 11, 0, 2, 14, 3, 0, 0)   // both interfaces are one function
	c = append(c, 9, 4, 0, 0, 0, 14, 1, 0, 0) // VideoControl
	c = append(c, 13, 0x24, 1, 0, 1, 40, 0, 0, 0x6c, 0xdc, 2, 1, 1)
	c = append(c, 18, 0x24, 2, 1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0) // camera
	c = append(c, 9, 0x24, 3, 2, 1, 1, 0, 1, 0)                             // to the bus
	c = append(c, 9, 4, 1, 0, 1, 14, 2, 0, 0)                               // VideoStreaming
	c = append(c, input...)
	c = append(c, format...)
	c = append(c, frame...)
	c = append(c, endpoint(packet)...)
	le.PutUint16(c[2:], uint16(len(c)))
	return c
}

func endpoint(packet uint16) []byte {
	return []byte{7, 5, 0x81, 2, byte(packet), byte(packet >> 8), 0}
}

// answer fills the probe control with what the camera does.
func (g *gadget) answer() {
	le := binary.LittleEndian
	g.probe[2], g.probe[3] = 1, 1
	le.PutUint32(g.probe[4:], 10_000_000/uvcRate)
	le.PutUint32(g.probe[18:], uint32(frameBytes(g.format)))
	le.PutUint32(g.probe[22:], maxPayload)
}

// Events of gadgetfs (linux/usb/gadgetfs.h): 8 bytes of a union and a type.
const (
	eventBytes = 12
	eventSetup = 3
)

// control answers what comes over endpoint 0.
func (g *gadget) control() {
	var events [5 * eventBytes]byte
	for !g.stopped() {
		p := []unix.PollFd{{Fd: int32(g.ep0), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, 20); n == 0 || err != nil {
			continue
		}
		n, err := unix.Read(g.ep0, events[:])
		if err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		for e := events[:n]; len(e) >= eventBytes; e = e[eventBytes:] {
			if binary.LittleEndian.Uint32(e[8:]) == eventSetup {
				g.setup(e[:8])
			}
		}
	}
	g.closeEndpoint()
}

// closeEndpoint takes the endpoint from the feeder, whose write would keep it from being opened anew, and closes it.
func (g *gadget) closeEndpoint() {
	g.feedMu.Lock()
	fd := g.ep
	g.ep = -1
	g.feedMu.Unlock()
	for g.sending.Load() {
		_ = unix.Tgkill(os.Getpid(), int(g.thread.Load()), unix.SIGURG)
		time.Sleep(time.Millisecond)
	}
	if fd >= 0 {
		_ = unix.Close(fd) // the camera is going, or the endpoint is opened anew
	}
}

// setup answers one control request. Errors mean that the host took it back; it asks again.
func (g *gadget) setup(r []byte) {
	kind, request, value := r[0], r[1], binary.LittleEndian.Uint16(r[2:])
	length := int(binary.LittleEndian.Uint16(r[6:]))
	reply := func(data []byte) { _, _ = unix.Write(g.ep0, data[:min(len(data), length)]) }
	ack := func() { _, _ = unix.Read(g.ep0, nil) }
	switch {
	case kind == 0x80 && request == 6 && value>>8 == 3:
		reply(g.text(byte(value)))
	case kind == 0 && request == 9: // SET_CONFIGURATION
		g.enable()
		ack()
	case kind == 1 && request == 11: // SET_INTERFACE
		ack()
	case kind == 0x81 && request == 10: // GET_INTERFACE
		reply([]byte{0})
	case kind == 0x21 && request == 1 && length > 0: // SET_CUR of probe or commit: there is one answer
		g.receive(make([]byte, length))
		if value>>8 == 2 {
			select {
			case g.commit <- struct{}{}:
			default:
			}
		}
	case kind == 0xa1 && request == 0x85:
		reply([]byte{26, 0})
	case kind == 0xa1 && request == 0x86:
		reply([]byte{3})
	case kind == 0xa1 && r[4] == 1 && (value>>8 == 1 || value>>8 == 2):
		reply(g.probe[:])
	case kind&0x80 != 0: // stall by the wrong direction
		_, _ = unix.Read(g.ep0, nil)
	default:
		_, _ = unix.Write(g.ep0, nil)
	}
}

// receive takes the data of a request, which come behind it. It does not sleep: when the host asks its next question before
// they are taken, gadgetfs loses that one.
func (g *gadget) receive(data []byte) {
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		if _, err := unix.Read(g.ep0, data); !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// text is a string descriptor.
func (g *gadget) text(index byte) []byte {
	s := map[byte]string{1: g.serial, 2: uvcProduct}[index]
	d := []byte{0, 3}
	if index == 0 {
		d = append(d, 9, 4) // English
	}
	for _, u := range utf16.Encode([]rune(s)) {
		d = binary.LittleEndian.AppendUint16(d, u)
	}
	d[0] = byte(len(d))
	return d
}

// enable opens the bulk endpoint, at the speed that the bus has now.
func (g *gadget) enable() {
	g.closeEndpoint()
	fd, err := unix.Open(gadgetDir+"/ep1in-bulk", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		names, _ := filepath.Glob(gadgetDir + "/*")
		g.failed.Store(fmt.Errorf("cannot open the endpoint: %w (there are %v)", err, names))
		return
	}
	msg := binary.LittleEndian.AppendUint32(nil, 1)
	msg = append(append(msg, endpoint(64)...), endpoint(512)...)
	if _, err := unix.Write(fd, msg); err != nil {
		err = errors.Join(err, unix.Close(fd))
		if !errors.Is(err, unix.ESHUTDOWN) { // else the port was reset meanwhile: the host configures again
			g.failed.Store(fmt.Errorf("cannot enable the endpoint: %w", err))
		}
		return
	}
	g.feedMu.Lock()
	defer g.feedMu.Unlock()
	g.ep = fd
}

// feed sends pictures from the commit on, at the camera's rate or as fast as the bus goes.
func (g *gadget) feed() {
	defer close(g.fed)
	runtime.LockOSThread()
	g.thread.Store(int32(unix.Gettid()))
	var fid byte
	var counter uint32
	tick := time.NewTicker(time.Second / uvcRate)
	defer tick.Stop()
	select {
	case <-g.commit:
	case <-g.stop:
		return
	}
	picture := newPainter(g.format)
	for !g.stopped() {
		select {
		case <-tick.C:
		case <-g.stop:
			return
		}
		if g.send(picture.paint(counter), fid) {
			g.made.Add(1)
		}
		counter++
		fid ^= 1
	}
}

// send writes one picture in payloads. The last is no multiple of the packet, so that the transfer ends with it.
func (g *gadget) send(data []byte, fid byte) bool {
	g.feedMu.Lock()
	fd := g.ep
	g.sending.Store(fd >= 0)
	g.feedMu.Unlock()
	defer g.sending.Store(false)
	if fd < 0 {
		return false
	}
	buf := make([]byte, 0, maxPayload)
	for len(data) > 0 {
		n := min(len(data), maxPayload-2)
		if n == len(data) && (n+2)%64 == 0 {
			n--
		}
		last := byte(0)
		if n == len(data) {
			last = 2 // end of frame
		}
		buf = append(append(buf[:0], 2, 0x80|last|fid), data[:n]...)
		if n < maxPayload-2 && last == 0 && len(buf)%512 == 0 {
			return false // cannot be: a short payload that does not look short
		}
		if _, err := unix.Write(fd, buf); err != nil {
			return false // unplugged, or reset
		}
		data = data[n:]
	}
	return true
}

// painter makes pictures that carry a counter.
type painter struct {
	format     sensors.Format
	base, data []byte
}

func newPainter(f sensors.Format) *painter {
	p := &painter{format: f}
	if f == sensors.MJPEG {
		img := image.NewGray(image.Rect(0, 0, uvcWidth, uvcHeight))
		for i := range img.Pix {
			img.SetGray(i%uvcWidth, i/uvcWidth, color.Gray{byte(i * i >> 7)})
		}
		var b bytes.Buffer
		if err := jpeg.Encode(&b, img, nil); err != nil {
			panic(err) // a good picture into memory
		}
		p.base = b.Bytes()
		return p
	}
	p.base = make([]byte, frameBytes(f))
	for i := range p.base {
		p.base[i] = byte(i*7 + i>>8)
	}
	p.data = make([]byte, len(p.base))
	return p
}

// paint is picture number n. A raw one has n in its first bytes and, mixed with the pattern, in every other; a JPEG has it
// with a checksum in a comment whose length varies.
func (p *painter) paint(n uint32) []byte {
	le := binary.LittleEndian
	if p.format != sensors.MJPEG {
		for i, b := range p.base {
			p.data[i] = b ^ byte(n) ^ byte(n>>8)
		}
		le.PutUint32(p.data, n)
		return p.data
	}
	comment := make([]byte, 8+n%300)
	le.PutUint32(comment, n)
	le.PutUint32(comment[4:], crc32.ChecksumIEEE(p.base[2:])^n)
	p.data = append(p.data[:0], 0xff, 0xd8, 0xff, 0xfe, byte((len(comment)+2)>>8), byte(len(comment)+2))
	p.data = append(p.data, comment...)
	p.data = append(p.data, p.base[2:]...)
	return p.data
}

// read checks a frame and says its number.
func (p *painter) read(f *sensors.Frame) (uint32, error) {
	data := f.Planes[0].Data
	if p.format == sensors.MJPEG {
		n := binary.LittleEndian.Uint32(data[6:])
		if want := p.paint(n); !bytes.Equal(data, want) {
			return n, fmt.Errorf("JPEG of %d bytes is not the one of %d", len(data), len(want))
		}
		return n, nil
	}
	n := binary.LittleEndian.Uint32(data)
	want := p.paint(n)
	all := [][]byte{data, f.Planes[1].Data}
	if len(all[0])+len(all[1]) != len(want) {
		return n, fmt.Errorf("%d bytes instead of %d", len(all[0])+len(all[1]), len(want))
	}
	if !bytes.Equal(all[0], want[:len(data)]) || !bytes.Equal(all[1], want[len(data):]) {
		return n, errors.New("torn")
	}
	return n, nil
}
