package bus

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vigil/sensors"
)

// picture makes a frame of the pattern that python/check.py expects. It belongs to no pool.
func picture(seq uint64, format sensors.Format, w, h int) *sensors.Frame {
	f := &sensors.Frame{Seq: seq, Captured: time.Now(), Width: w, Height: h, Format: format, FullRange: true}
	one := func(i, stride, rows int) {
		f.Planes[i] = sensors.Plane{Data: make([]byte, stride*rows), StrideBytes: stride}
	}
	switch format {
	case sensors.RGB24:
		one(0, 3*w, h)
	case sensors.NV12:
		one(0, w, h)
		one(1, w, h/2)
	case sensors.YUYV:
		one(0, 2*w, h)
	case sensors.MJPEG:
		one(0, w+int(seq%7), 1) // of varying length
	default:
		one(0, w, h)
	}
	for i := range f.Planes {
		for j := range f.Planes[i].Data {
			f.Planes[i].Data[j] = byte((int(seq)*31 + i*7 + j) % 251)
		}
	}
	return f
}

// quiet fails the test if goroutines or descriptors are left.
func quiet(t *testing.T) {
	t.Helper()
	goroutines, fds := runtime.NumGoroutine(), descriptors(t)
	t.Cleanup(func() {
		for limit := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > goroutines || descriptors(t) > fds; time.Sleep(time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("%d goroutines and %d descriptors, before %d and %d", runtime.NumGoroutine(), descriptors(t), goroutines, fds)
			}
		}
	})
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func ring(t *testing.T, o Options) *Ring {
	t.Helper()
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(r.Close(), r.Close()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func serve(t *testing.T, a Access, rings ...*Ring) (*Server, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bus")
	s, err := Serve(path, a)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rings {
		s.Add(r)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	})
	return s, path
}

func me() Access { return Access{Users: []uint32{uint32(os.Getuid())}} }

// ask connects, sends a request and returns the answer and the descriptor, 0 if there was none.
func ask(t *testing.T, path, request string) (string, int) {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	c.Write([]byte(request)) // the server may have closed already
	data, oob := make([]byte, 256), make([]byte, 64)
	n, on, _, _, err := c.ReadMsgUnix(data, oob)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		t.Fatal(err)
	}
	n, on = max(n, 0), max(on, 0)
	messages, err := unix.ParseSocketControlMessage(oob[:on])
	if err != nil {
		t.Fatal(err)
	}
	if len(messages) > 0 {
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			t.Fatalf("%d descriptors, %v", len(fds), err)
		}
		return string(data[:n]), fds[0]
	}
	return string(data[:n]), 0
}

// mapped is a reader's view.
func mapped(t *testing.T, fd int) []byte {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	b, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(b) })
	return b
}

func TestLayout(t *testing.T) {
	quiet(t)
	r := ring(t, Options{Sensor: "door", Slots: 4, FrameBytes: 10000})
	fd, err := r.descriptor()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	b := mapped(t, fd)
	if string(b[:8]) != "VIGILBUS" || le.Uint32(b[8:]) != 1 || le.Uint32(b[12:]) != 4096 || le.Uint32(b[16:]) != 4 ||
		le.Uint32(b[20:]) != 10000 || string(b[36:36+le.Uint32(b[32:])]) != "door" {
		t.Errorf("header % x", b[:64])
	}
	stride := int(le.Uint64(b[24:]))
	for n := uint64(1); n <= 11; n++ {
		f := picture(n+100, sensors.NV12, 66, 48)
		f.Captured = time.Unix(int64(n), 5)
		if !r.Publish(f) {
			t.Fatal("not published")
		}
		slot := b[4096+int((n-1)%4)*stride:]
		if le.Uint64(b[128:]) != n || le.Uint64(slot) != 2*n || le.Uint64(slot[8:]) != n+100 || le.Uint64(slot[16:]) != n*1e9+5 ||
			le.Uint32(slot[32:]) != 66 || le.Uint32(slot[36:]) != 48 || le.Uint32(slot[40:]) != 3 || le.Uint32(slot[44:]) != 1 || le.Uint32(slot[48:]) != 2 {
			t.Fatalf("frame %d: % x", n, slot[:64])
		}
		for i, p := range f.Planes {
			d := slot[64+32*i:]
			at, size := le.Uint64(d[8:]), le.Uint64(d[16:])
			if at%64 != 0 || !bytes.Equal(slot[at:at+size], p.Data) || int(le.Uint32(d[24:])) != p.StrideBytes || int(le.Uint32(d[28:])) != 48>>i {
				t.Fatalf("frame %d plane %d: % x", n, i, d[:32])
			}
		}
	}
	if s := r.Stats(); s.Frames != 11 || s.CopiedBytes != 11*66*72 {
		t.Errorf("%+v: want one copy of each byte", s)
	}
	if err := r.Close(); err != nil || le.Uint64(b[144:]) != 1 {
		t.Errorf("closed %d, %v", le.Uint64(b[144:]), err)
	}
	for _, v := range b[4096:] {
		if v != 0 {
			t.Fatal("pictures are left after Close")
		}
	}
	if r.Publish(picture(1, sensors.Gray8, 8, 8)) {
		t.Error("published after Close")
	}
}

func TestMonotonicTimeIsThatOfOtherProcesses(t *testing.T) {
	var before, after unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &before)
	captured := time.Now()
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &after)
	slack := int64(5 * time.Second) // of a busy machine; a clock with another origin is off by far more or by chance
	if m := monotonic(captured); m < before.Nano()-slack || m > after.Nano()+slack {
		t.Errorf("captured at %d, the clock ran from %d to %d", m, before.Nano(), after.Nano())
	}
}

func TestNobodyElseCanWrite(t *testing.T) {
	quiet(t)
	r := ring(t, Options{Sensor: "door", FrameBytes: 5000})
	_, path := serve(t, me(), r)
	answer, fd := ask(t, path, "vigil-bus/1 door\n")
	if answer != "ok\n" || fd == 0 {
		t.Fatalf("answer %q", answer)
	}
	defer unix.Close(fd)
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if want := unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL | unix.F_SEAL_FUTURE_WRITE; err != nil || seals&want != want {
		t.Errorf("seals %#x, %v", seals, err)
	}
	b := mapped(t, fd)
	if _, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
		t.Error("mapped for writing")
	}
	if err := unix.Mprotect(b[:4096], unix.PROT_READ|unix.PROT_WRITE); err == nil {
		t.Error("made writable")
	}
	for name, try := range map[string]func(int) error{
		"write":  func(fd int) error { _, err := unix.Pwrite(fd, []byte{1}, 0); return err },
		"shrink": func(fd int) error { return unix.Ftruncate(fd, 0) },
		"grow":   func(fd int) error { return unix.Ftruncate(fd, 1<<30) },
		"punch": func(fd int) error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096)
		},
		"seal": func(fd int) error {
			_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE)
			return err
		},
		"writable": func(fd int) error { // open it anew, for writing: what the mode lets the owner do, the seal forbids to use
			f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte{1}, 0); err != nil {
				return err
			}
			return nil
		},
	} {
		if try(fd) == nil {
			t.Errorf("%s: allowed", name)
		}
	}
	if !r.Publish(picture(1, sensors.Gray8, 8, 8)) || le.Uint64(b[128:]) != 1 {
		t.Error("the writer cannot write any more")
	}
}

func TestTooLargeIsLeftOutAndCounted(t *testing.T) {
	r := ring(t, Options{Sensor: "door", Slots: 4, FrameBytes: 64 * 48})
	if r.Publish(picture(1, sensors.RGB24, 64, 48)) || !r.Publish(picture(2, sensors.Gray8, 64, 48)) {
		t.Error("the wrong frame was left out")
	}
	if s := r.Stats(); s.TooLarge != 1 || s.Frames != 1 || le.Uint64(r.mem[tooLargeAt:]) != 1 {
		t.Errorf("%+v", s)
	}
	for _, o := range []Options{{Slots: 3}, {Slots: 5000}, {FrameBytes: 1 << 30}, {Sensor: strings.Repeat("x", 65)}, {FrameBytes: -1}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}

func TestPublishAllocatesNothing(t *testing.T) {
	r := ring(t, Options{Sensor: "door", FrameBytes: 1 << 20})
	for _, format := range []sensors.Format{sensors.Gray8, sensors.NV12, sensors.RGB24} {
		f := picture(1, format, 320, 240)
		if n := testing.AllocsPerRun(100, func() { r.Publish(f) }); n > 0 {
			t.Errorf("%v: %v allocations per frame", format, n)
		}
	}
}

// TestReadersNeverSeeATornFrame: a reader by the rules beside a writer that does not rest. The reader's mapping has another
// address than the writer's, as in another process.
func TestReadersNeverSeeATornFrame(t *testing.T) {
	r := ring(t, Options{Sensor: "door", Slots: 4, FrameBytes: 64 << 10})
	fd, err := r.descriptor()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	b := mapped(t, fd)
	stride := int(le.Uint64(b[24:]))
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		f := picture(1, sensors.Gray8, 256, 256)
		for n := uint64(1); !stop.Load(); n++ {
			for i := range f.Planes[0].Data {
				f.Planes[0].Data[i] = byte(n)
			}
			f.Seq = n
			r.Publish(f)
		}
	}()
	whole, torn := 0, 0
	for limit := time.Now().Add(20 * time.Second); whole < 300 && time.Now().Before(limit); {
		n := atomic.LoadUint64(word(b, headAt))
		at := headerBytes + int((n-1)%4)*stride
		if n == 0 || atomic.LoadUint64(word(b, at)) != 2*n {
			continue
		}
		pixels, same := b[at+pixelsAt:at+pixelsAt+256*256], true
		for _, v := range pixels {
			same = same && v == byte(n)
		}
		if atomic.LoadUint64(word(b, at)) != 2*n || atomic.LoadUint64(word(b, headAt)) >= n+4-1 {
			torn++
			continue
		}
		if whole++; !same {
			t.Fatalf("frame %d is torn and counts as whole", n)
		}
	}
	stop.Store(true)
	<-done
	if whole < 300 {
		t.Errorf("%d whole frames, %d overtaken", whole, torn)
	}
	t.Logf("%d whole, %d overtaken and noticed", whole, torn)
}

func TestWhoIsLetIn(t *testing.T) {
	quiet(t)
	r := ring(t, Options{Sensor: "door", FrameBytes: 5000})
	for name, c := range map[string]struct {
		access Access
		let    bool
	}{
		"user":        {me(), true},
		"group":       {Access{Groups: []uint32{uint32(os.Getgid())}}, true},
		"other user":  {Access{Users: []uint32{uint32(os.Getuid()) + 1}}, false},
		"other group": {Access{Groups: []uint32{uint32(os.Getgid()) + 1}}, false},
	} {
		s, path := serve(t, c.access, r)
		answer, fd := ask(t, path, "vigil-bus/1 door\n")
		if fd != 0 {
			unix.Close(fd)
		}
		if (fd != 0) != c.let || c.let != (answer == "ok\n") || (s.Stats().Refused == 0) != c.let {
			t.Errorf("%s: answer %q, descriptor %d, %+v", name, answer, fd, s.Stats())
		}
	}
	if _, err := Serve(filepath.Join(t.TempDir(), "x"), Access{}); err == nil {
		t.Error("a bus for nobody was opened")
	}
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, []byte("mine"), 0o600)
	if _, err := Serve(file, me()); err == nil {
		t.Error("a file was replaced by a socket")
	}
}

// TestReadersThatLie: garbage, silence, thousands of connections. Meanwhile the writer goes on, and afterwards an honest
// reader is served.
func TestReadersThatLie(t *testing.T) {
	quiet(t)
	r := ring(t, Options{Sensor: "door", FrameBytes: 5000})
	s, path := serve(t, me(), r)
	for _, garbage := range []string{"\n", "GET / HTTP/1.1\r\n\r\n", "vigil-bus/2 door\n", "vigil-bus/1 \n", "vigil-bus/1 cellar\n",
		"vigil-bus/1 ../door\n", strings.Repeat("\x00", 4096), strings.Repeat("vigil-bus/1 ", 5000) + "\n"} {
		if answer, fd := ask(t, path, garbage); fd != 0 || strings.HasPrefix(answer, "ok") {
			t.Errorf("%.20q got %q and descriptor %d", garbage, answer, fd)
		}
	}
	published := r.Stats().Frames
	var open []net.Conn
	frame := picture(1, sensors.Gray8, 32, 32)
	for i := range 3000 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		open = append(open, c)
		if len(open) > 200 { // this process's descriptors are bounded too
			open[0].Close()
			open = open[1:]
		}
		r.Publish(frame)
	}
	if n := runtime.NumGoroutine(); n > maxHandshakes+20 {
		t.Errorf("%d goroutines beside silent readers", n)
	}
	if got := r.Stats().Frames - published; got != 3000 {
		t.Errorf("%d of 3000 frames published", got)
	}
	for _, c := range open {
		c.Close()
	}
	var answer string
	var fd int
	for range 100 { // until the silent ones have been sent away
		if answer, fd = ask(t, path, "vigil-bus/1 door\n"); fd != 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if fd == 0 {
		t.Fatalf("an honest reader got %q", answer)
	}
	unix.Close(fd)
	t.Logf("%+v", s.Stats())
}

// python finds an interpreter with NumPy: VIGIL_PYTHON, that of scripts/setup, or the system's.
func python(t *testing.T) string {
	t.Helper()
	for _, p := range []string{os.Getenv("VIGIL_PYTHON"), "../../.cache/bus/venv/bin/python", "python3", "/usr/bin/python3"} {
		if p == "" {
			continue
		}
		if strings.HasPrefix(p, ".") {
			p, _ = filepath.Abs(p)
		}
		if exec.Command(p, "-c", "import numpy").Run() == nil {
			return p
		}
	}
	t.Skip("no Python with NumPy: run scripts/setup test, or name one in VIGIL_PYTHON")
	return ""
}

// seen is what python/check.py prints.
type seen struct {
	Seen, Torn, Wrong, Outside, Missed, Arrow, Views int
	Ascending, Writable                              bool
	First, Last                                      []uint64
	ViewBytes                                        int `json:"view_bytes"`
	AnonKiB                                          int `json:"anon_kib"`
	ShmemKiB                                         int `json:"shmem_kib"`
}

// read runs the Python reader while frames are published, pausing pause between two.
func read(t *testing.T, format sensors.Format, w, h, want int, pause time.Duration, more ...string) (seen, Stats) {
	t.Helper()
	interpreter := python(t)
	quiet(t)
	r := ring(t, Options{Sensor: "door", Slots: 32, FrameBytes: 4 << 20})
	s, path := serve(t, me(), r)
	cmd := exec.Command(interpreter, append([]string{"python/check.py", path, "door", fmt.Sprint(want)}, more...)...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for limit := time.Now().Add(time.Minute); s.Stats().Given == 0 && time.Now().Before(limit); {
		time.Sleep(time.Millisecond)
	}
	for seq := uint64(1); ; seq++ {
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("%v: %s", err, stderr.Bytes())
			}
			var got seen
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatalf("%v: %s", err, out.Bytes())
			}
			t.Logf("%v: %+v; published %+v", format, got, r.Stats())
			return got, r.Stats()
		default:
		}
		if seq > 100000 {
			cmd.Process.Kill()
			t.Fatal("the reader never had enough")
		}
		r.Publish(picture(seq, format, w, h))
		time.Sleep(pause)
	}
}

// TestPython: every frame, bit for bit, where it lies: at an address within the mapping, without private memory, and never
// writable.
func TestPython(t *testing.T) {
	for _, format := range []sensors.Format{sensors.Gray8, sensors.RGB24, sensors.NV12, sensors.YUYV, sensors.MJPEG} {
		t.Run(format.String(), func(t *testing.T) {
			got, _ := read(t, format, 320, 240, 100, 20*time.Millisecond)
			if got.Seen != 100 || got.Wrong != 0 || got.Outside != 0 || !got.Ascending || got.Writable {
				t.Errorf("%+v", got)
			}
			if got.Missed+got.Torn == 0 && got.Last[0]-got.First[0] != 99 {
				t.Errorf("frames %d to %d, and none missed", got.First[0], got.Last[0])
			}
			if format == sensors.RGB24 && (got.ViewBytes < 100<<20 || got.AnonKiB > got.ViewBytes>>10/10) {
				t.Errorf("%d KiB of private memory for views of %d KiB", got.AnonKiB, got.ViewBytes>>10)
			}
		})
	}
}

// TestSlowPython: a reader that cannot keep up loses frames, knows how many, and uses no torn one; the writer does not care.
func TestSlowPython(t *testing.T) {
	got, stats := read(t, sensors.Gray8, 320, 240, 10, 2*time.Millisecond, "slow")
	if got.Seen != 10 || got.Wrong != 0 || got.Missed == 0 || got.Torn == 0 || stats.Frames < 100 {
		t.Errorf("%+v, published %d", got, stats.Frames)
	}
}

// TestStoppedAndKilledReaders: a reader that is stopped, and one that is killed, with the ring mapped.
func TestStoppedAndKilledReaders(t *testing.T) {
	interpreter := python(t)
	quiet(t)
	r := ring(t, Options{Sensor: "door", Slots: 8, FrameBytes: 1 << 20})
	s, path := serve(t, me(), r)
	cmd := exec.Command(interpreter, "python/example.py", path, "door")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(time.Minute); s.Stats().Given == 0 && time.Now().Before(limit); {
		time.Sleep(time.Millisecond)
	}
	f := picture(1, sensors.Gray8, 320, 240)
	publish := func() {
		t.Helper()
		for range 500 {
			if !r.Publish(f) {
				t.Fatal("not published")
			}
		}
	}
	publish()
	if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	publish()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	publish()
	if got := r.Stats(); got.Frames != 1500 || got.TooLarge != 0 || s.Stats().Given != 1 {
		t.Errorf("%+v, %+v", got, s.Stats())
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, c := range []struct {
		format sensors.Format
		w, h   int
	}{{sensors.NV12, 640, 480}, {sensors.NV12, 1920, 1080}} {
		b.Run(fmt.Sprintf("%v/%dx%d", c.format, c.w, c.h), func(b *testing.B) {
			r, err := New(Options{Sensor: "bench"})
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			f := picture(1, c.format, c.w, c.h)
			b.SetBytes(int64(len(f.Planes[0].Data) + len(f.Planes[1].Data)))
			b.ReportAllocs()
			for b.Loop() {
				r.Publish(f)
			}
			s := r.Stats()
			b.ReportMetric(float64(s.CopiedBytes)/float64(s.Frames)/float64(len(f.Planes[0].Data)+len(f.Planes[1].Data)), "copies/frame")
		})
	}
}
