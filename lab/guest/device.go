package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf16"
	"unsafe"

	"golang.org/x/sys/unix"

	"vigil/sensors"
)

// A USB camera made of gadgetfs on dummy_hcd, in a process of its own. usb_f_uvc cannot be it: it streams over isochronous
// endpoints only, which dummy_hcd does not carry; this one streams over a bulk endpoint (USB Video Class 1.0, 2.4.3.2.1),
// which uvcvideo takes as well. Its pictures carry a counter, so that a lost or torn one shows.
//
// gadgetfs has a flaw: between the end of a request's data and the moment they are read, it refuses or forgets the next
// request, and the host may well be that quick. So requests are answered by a real-time thread that never waits for Go's
// scheduler, allocator or collector, nor for memory, and the machine has one processor: whatever wakes the host wakes this
// thread too, which runs first.

// device is the camera.
type device struct {
	format sensors.Format
	serial string
	ep0    int
	probe  [26]byte
	data   [64]byte // of a request
	commit chan struct{}
	deaf   atomic.Bool // the next question of what it streams is answered too late

	thread  atomic.Int32 // that feeds
	sending atomic.Bool
	feedMu  sync.Mutex
	ep      int // -1 without
}

// beCamera is the main function of the process: arguments are the format's number and the serial number. It ends when it
// is killed. What it cannot do it complains of on standard error.
func beCamera(args []string) {
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(4) // the two threads, and no waiting for a turn
	runtime.LockOSThread()
	f, err := strconv.Atoi(args[0])
	if err == nil {
		err = newDevice(sensors.Format(f), args[1]).run()
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func newDevice(f sensors.Format, serial string) *device {
	g := &device{format: f, serial: serial, ep: -1, commit: make(chan struct{}, 1)}
	le := binary.LittleEndian
	g.probe[2], g.probe[3] = 1, 1
	le.PutUint32(g.probe[4:], 10_000_000/uvcRate)
	le.PutUint32(g.probe[18:], uint32(frameBytes(f)))
	le.PutUint32(g.probe[22:], maxPayload)
	return g
}

func (g *device) run() error {
	files, err := filepath.Glob(gadgetDir + "/dummy_udc*")
	if err != nil || len(files) != 1 {
		return fmt.Errorf("gadgetfs names the controllers %v: %w", files, err)
	}
	if g.ep0, err = unix.Open(files[0], unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("cannot open the controller: %w", err)
	}
	go g.feed()
	go g.obey()
	realTime := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Flags: unix.SCHED_FLAG_RESET_ON_FORK, Priority: 50}
	if err := unix.SchedSetAttr(0, &realTime, 0); err != nil {
		return fmt.Errorf("cannot be real-time: %w", err)
	}
	msg := binary.LittleEndian.AppendUint32(nil, 0)
	msg = append(msg, configuration(g.format, 64)...)
	msg = append(msg, configuration(g.format, 512)...)
	msg = append(msg, deviceDescriptor()...)
	if err := unix.Mlockall(unix.MCL_CURRENT); err != nil {
		return fmt.Errorf("cannot lock the memory: %w", err)
	}
	if _, err := unix.Write(g.ep0, msg); err != nil {
		return fmt.Errorf("gadgetfs does not take the descriptors: %w", err)
	}
	return g.control()
}

// deafFor is longer than uvcvideo waits for an answer, which is 5 s.
const deafFor = 5500 * time.Millisecond

// obey makes the camera deaf for one question, at every SIGUSR1.
func (g *device) obey() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGUSR1)
	for range c {
		g.deaf.Store(true)
	}
}

// raw is a system call of which Go's scheduler does not know.
func raw(call uintptr, fd int, data []byte) (int, unix.Errno) {
	var at unsafe.Pointer
	if len(data) > 0 {
		at = unsafe.Pointer(&data[0])
	}
	n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(at), uintptr(len(data)))
	return int(n), errno
}

// Events of gadgetfs (linux/usb/gadgetfs.h): 8 bytes of a union and a type.
const (
	eventBytes = 12
	eventSetup = 3
)

// control answers what comes over endpoint 0.
func (g *device) control() error {
	var events [5 * eventBytes]byte
	for {
		p := unix.PollFd{Fd: int32(g.ep0), Events: unix.POLLIN | unix.POLLOUT}
		_, _, errno := unix.RawSyscall(unix.SYS_POLL, uintptr(unsafe.Pointer(&p)), 1, ^uintptr(0))
		if errno == unix.EINTR || errno == 0 && p.Revents&(unix.POLLIN|unix.POLLOUT) == 0 {
			continue
		}
		if errno != 0 {
			return fmt.Errorf("cannot wait for requests: %w", errno)
		}
		if p.Revents&unix.POLLOUT != 0 { // an answer is due to a request that is not in our hands
			fmt.Fprintln(os.Stderr, lostRequest)
			_, _ = raw(unix.SYS_READ, g.ep0, nil) // stalls it
			_, _ = raw(unix.SYS_READ, g.ep0, events[:])
			_, _ = raw(unix.SYS_READ, g.ep0, nil)
			continue
		}
		n, errno := raw(unix.SYS_READ, g.ep0, events[:])
		if errno != 0 {
			continue // taken back meanwhile
		}
		for e := events[:n]; len(e) >= eventBytes; e = e[eventBytes:] {
			if binary.LittleEndian.Uint32(e[8:]) == eventSetup {
				g.setup(e[:8])
			}
		}
	}
}

// setup answers one control request. Errors mean that the host took it back; it asks again.
func (g *device) setup(r []byte) {
	kind, request, value := r[0], r[1], binary.LittleEndian.Uint16(r[2:])
	length := int(binary.LittleEndian.Uint16(r[6:]))
	reply := func(data []byte) { _, _ = raw(unix.SYS_WRITE, g.ep0, data[:min(len(data), length)]) }
	ack := func() { _, _ = raw(unix.SYS_READ, g.ep0, nil) }
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
		_, _ = raw(unix.SYS_READ, g.ep0, g.data[:min(length, len(g.data))])
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
		if g.deaf.Swap(false) {
			time.Sleep(deafFor)
		}
		reply(g.probe[:])
	case kind&0x80 != 0: // stall by the wrong direction
		_, _ = raw(unix.SYS_READ, g.ep0, nil)
	default:
		_, _ = raw(unix.SYS_WRITE, g.ep0, nil)
	}
}

// text is a string descriptor.
func (g *device) text(index byte) []byte {
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
func (g *device) enable() {
	g.closeEndpoint()
	fd, err := unix.Open(gadgetDir+"/ep1in-bulk", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		names, _ := filepath.Glob(gadgetDir + "/*")
		fmt.Fprintf(os.Stderr, "cannot open the endpoint: %v (there are %v)\n", err, names)
		return
	}
	msg := binary.LittleEndian.AppendUint32(nil, 1)
	msg = append(append(msg, endpoint(64)...), endpoint(512)...)
	if _, err := unix.Write(fd, msg); err != nil {
		if !errors.Is(err, unix.ESHUTDOWN) { // else the port was reset meanwhile: the host configures again
			fmt.Fprintln(os.Stderr, "cannot enable the endpoint:", err)
		}
		_ = unix.Close(fd) // it was never used
		return
	}
	g.feedMu.Lock()
	defer g.feedMu.Unlock()
	g.ep = fd
}

// closeEndpoint takes the endpoint from the feeder, whose write would keep it from being opened anew, and closes it.
func (g *device) closeEndpoint() {
	g.feedMu.Lock()
	fd := g.ep
	g.ep = -1
	g.feedMu.Unlock()
	for g.sending.Load() {
		_ = unix.Tgkill(os.Getpid(), int(g.thread.Load()), unix.SIGURG) // a signal that Go's runtime ignores
		time.Sleep(time.Millisecond)
	}
	if fd >= 0 {
		_ = unix.Close(fd) // it is opened anew
	}
}

// feed sends pictures from the first commit on, at the camera's rate or as fast as the bus goes.
func (g *device) feed() {
	runtime.LockOSThread()
	g.thread.Store(int32(unix.Gettid()))
	<-g.commit
	tick := time.NewTicker(time.Second / uvcRate)
	defer tick.Stop()
	picture, buf := newPainter(g.format), make([]byte, 0, maxPayload)
	var fid byte
	for n := uint32(0); ; n++ {
		<-tick.C
		g.send(picture.paint(n), buf, fid)
		fid ^= 1
	}
}

// send writes one picture in payloads. The last is no multiple of the packet, so that the transfer ends with it.
func (g *device) send(data, buf []byte, fid byte) {
	g.feedMu.Lock()
	fd := g.ep
	g.sending.Store(fd >= 0)
	g.feedMu.Unlock()
	defer g.sending.Store(false)
	for fd >= 0 && len(data) > 0 {
		n := min(len(data), maxPayload-2)
		if n == len(data) && (n+2)%64 == 0 {
			n--
		}
		last := byte(0)
		if n == len(data) {
			last = 2 // end of frame
		}
		buf = append(append(buf[:0], 2, 0x80|last|fid), data[:n]...)
		if _, err := unix.Write(fd, buf); err != nil {
			return // reset
		}
		data = data[n:]
	}
}
