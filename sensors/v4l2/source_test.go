package v4l2

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vigil/sensors"
	"vigil/sensors/v4l2/v4l2test"
)

func TestEveryFormatIsLaidOutAsTheKernelSays(t *testing.T) {
	for _, c := range []struct {
		code   string
		mplane bool
		want   sensors.Format
		bytes  [2]int
		full   bool
	}{
		{"YUYV", false, sensors.YUYV, [2]int{6144, 0}, false}, {"YUYV", true, sensors.YUYV, [2]int{6144, 0}, false},
		{"NV12", false, sensors.NV12, [2]int{3072, 1536}, false}, {"NV12", true, sensors.NV12, [2]int{3072, 1536}, false},
		{"NM12", true, sensors.NV12, [2]int{3072, 1536}, false}, {"GREY", false, sensors.Gray8, [2]int{3072, 0}, true},
		{"GREY", true, sensors.Gray8, [2]int{3072, 0}, true}, {"MJPG", false, sensors.MJPEG, [2]int{3072, 0}, true},
		{"RGB3", false, sensors.RGB24, [2]int{9216, 0}, true},
	} {
		b, k := newBench(t), v4l2test.NewCamera()
		k.Code, k.Mplane = c.code, c.mplane
		b.plug(0, "1", "046d:085e", "A1", "Webcam", k)
		s := b.source(func(o *Options) { o.Format, o.Code = c.want, c.code })
		f := mustNext(t, s)
		got := [2]int{len(f.Planes[0].Data), len(f.Planes[1].Data)}
		if f.Format != c.want || got != c.bytes || f.Width != 64 || f.Height != 48 || f.FullRange != c.full || f.Sensor != "porch" || f.Seq != 1 {
			t.Errorf("%s (mplane %v): %+v with %v bytes", c.code, c.mplane, f, got)
		}
		if &f.Planes[0].Data[0] != &k.Mem[0][0][0] {
			t.Errorf("%s: the frame is a copy", c.code)
		}
		if age := time.Since(f.Captured); age < 5*time.Millisecond || age > time.Minute {
			t.Errorf("%s: captured %v ago, the driver says 5 ms", c.code, age)
		}
		f.Release()
		if err := s.Close(); err != nil || k.Mapped != 0 {
			t.Errorf("%s: %d planes stay mapped, %v", c.code, k.Mapped, err)
		}
	}
}

func TestTheCodeChoosesAmongThoseOfAFormat(t *testing.T) {
	b, k := newBench(t), v4l2test.NewCamera()
	k.Code, k.Mplane = "NM12", true
	b.plug(0, "1", "046d:085e", "A1", "Webcam", k)
	s := b.source(func(o *Options) { o.Format, o.Code = sensors.NV12, "NV12" })
	if f, err := s.Next(t.Context()); StateOf(err) != StateUnsuited || !strings.Contains(err.Error(), "NV12 as NV12") {
		t.Errorf("frame %v, state %s: %v", f, StateOf(err), err)
	}
}

func TestBadBuffersAreNamedAndCounted(t *testing.T) {
	b, k := newBench(t), v4l2test.NewCamera()
	b.plug(0, "1", "046d:085e", "A1", "Webcam", k)
	k.Script = []v4l2test.Fill{{}, {Flags: v4l2test.Damaged}, {Short: true}, {Empty: true}, {Skip: 3}, {}}
	s := b.source(nil)
	var seqs []uint64
	skipped := 0
	for len(seqs) < 3 {
		f, err := s.Next(t.Context())
		var skip *sensors.SkippedError
		switch {
		case errors.As(err, &skip):
			skipped++
		case err != nil:
			t.Fatal(err)
		default:
			seqs = append(seqs, f.Seq)
			f.Release()
		}
	}
	if st := s.Stats(); skipped != 3 || st.Damaged != 3 || st.Lost != 3 || st.Frames != 3 || seqs[0] != 1 || seqs[1] != 8 || seqs[2] != 9 {
		t.Errorf("%d skipped, frames %v, %+v", skipped, seqs, st)
	}
	if len(k.Queued) != 6 {
		t.Errorf("%d of 6 buffers are the driver's again", len(k.Queued))
	}
}

func TestALostFrameIsOursOrTheDrivers(t *testing.T) {
	late := make([]v4l2test.Fill, 6) // as many frames as there are buffers, and no look that finds none
	for name, c := range map[string]struct {
		script        []v4l2test.Fill
		lost, starved uint64
	}{
		"the driver had buffers":         {[]v4l2test.Fill{{}, {None: true}, {}, {None: true}, {Skip: 3}}, 3, 0},
		"it still had one":               {append(slices.Clone(late[1:]), v4l2test.Fill{Skip: 3}), 3, 0},
		"it may have had none":           {append(slices.Clone(late), v4l2test.Fill{Skip: 3}), 3, 3},
		"we caught up, but too late":     {append(slices.Clone(late), v4l2test.Fill{None: true}, v4l2test.Fill{Skip: 3}), 3, 3},
		"we caught up one frame earlier": {append(slices.Clone(late), v4l2test.Fill{None: true}, v4l2test.Fill{}, v4l2test.Fill{Skip: 3}), 3, 0},
		"one gap is ours, one is not":    {append(slices.Clone(late), v4l2test.Fill{Skip: 2}, v4l2test.Fill{None: true}, v4l2test.Fill{}, v4l2test.Fill{Skip: 5}), 7, 2},
	} {
		b, k := newBench(t), v4l2test.NewCamera()
		b.plug(0, "1", "046d:085e", "A1", "Webcam", k)
		frames := 0
		for _, f := range c.script {
			if !f.None {
				frames++
			}
		}
		k.Script = c.script
		s := b.source(nil)
		for range frames {
			mustNext(t, s).Release()
		}
		if st := s.Stats(); st.Lost != c.lost || st.Starved != c.starved {
			t.Errorf("%s: %d lost, %d of them may be ours; want %d and %d", name, st.Lost, st.Starved, c.lost, c.starved)
		}
	}
}

func TestHeldFramesStarveNobody(t *testing.T) {
	b, k := newBench(t), v4l2test.NewCamera()
	b.plug(0, "1", "046d:085e", "A1", "Webcam", k)
	s := b.source(nil)
	var held []*sensors.Frame
	for range 4 {
		held = append(held, mustNext(t, s))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if f, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("frame %v, %v: two buffers must stay with the driver", f, err)
	}
	for i, f := range held {
		if got := binary.LittleEndian.Uint32(f.Planes[0].Data); got != uint32(i) {
			t.Errorf("held frame %d was overwritten with %d", i, got)
		}
	}
	held[2].Release()
	f := mustNext(t, s)
	if st := s.Stats(); st.LetGo == 0 || st.Restarts != 0 || st.Lost != 0 {
		t.Errorf("%+v", st)
	}
	f.Release()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if k.Mapped != 3 {
		t.Errorf("%d buffers are mapped behind Close, 3 are held", k.Mapped)
	}
	for _, i := range []int{0, 1, 3} {
		held[i].Release()
	}
	if k.Mapped != 0 {
		t.Errorf("%d buffers stay mapped", k.Mapped)
	}
}

func TestTroubleIsANamedState(t *testing.T) {
	for name, c := range map[string]struct {
		trouble func(b *bench, k *v4l2test.Camera)
		mend    func(b *bench, k *v4l2test.Camera)
		want    State
		says    string
	}{
		"busy when buffers are asked for": {
			func(_ *bench, k *v4l2test.Camera) { k.Errs[v4l2test.GetBuffers] = []error{unix.EBUSY} }, nil, StateBusy, "busy"},
		"busy when the format is set": {
			func(_ *bench, k *v4l2test.Camera) { k.Errs[v4l2test.SetFormat] = []error{unix.EBUSY} }, nil, StateBusy, "busy"},
		"zero buffers": {
			func(_ *bench, k *v4l2test.Camera) { k.Buffers = 0 }, func(_ *bench, k *v4l2test.Camera) { k.Buffers = 8 }, StateUnsuited, "0 buffers"},
		"two buffers": {
			func(_ *bench, k *v4l2test.Camera) { k.Buffers = 2 }, func(_ *bench, k *v4l2test.Camera) { k.Buffers = 8 }, StateUnsuited, "2 buffers"},
		"short planes": {
			func(_ *bench, k *v4l2test.Camera) { k.Length = 100 }, func(_ *bench, k *v4l2test.Camera) { k.Length = 0 }, StateUnsuited, "100 bytes"},
		"another format": {
			func(_ *bench, k *v4l2test.Camera) { k.Code = "BA81" }, func(_ *bench, k *v4l2test.Camera) { k.Code = "YUYV" }, StateUnsuited, "BA81 instead"},
		"no access": {
			func(b *bench, _ *v4l2test.Camera) { b.Refuse(unix.EACCES) }, func(b *bench, _ *v4l2test.Camera) { b.Refuse(nil) }, StateDenied, "permission"},
		"it cannot be opened": {
			func(b *bench, _ *v4l2test.Camera) { b.Refuse(unix.EMFILE) }, func(b *bench, _ *v4l2test.Camera) { b.Refuse(nil) }, StateFailed, "too many"},
		"out of memory": {
			func(_ *bench, k *v4l2test.Camera) { k.Errs[v4l2test.GetBuffers] = []error{unix.ENOMEM} }, nil, StateFailed, "memory"},
		"EIO at every start": {
			func(_ *bench, k *v4l2test.Camera) { k.Errs[v4l2test.StreamOn] = []error{unix.EIO} }, nil, StateStalled, "start the stream"},
		"it does not answer when the format is set": {
			func(_ *bench, k *v4l2test.Camera) { k.Errs[v4l2test.SetFormat] = []error{unix.ETIMEDOUT} }, nil, StateStalled, "timed out"},
		"it does not answer at the start": {
			func(_ *bench, k *v4l2test.Camera) { k.Errs[v4l2test.StreamOn] = []error{unix.ETIMEDOUT} }, nil, StateStalled, "timed out"},
		"it answers nonsense": {
			func(_ *bench, k *v4l2test.Camera) { k.Errs[v4l2test.StreamOn] = []error{unix.EPROTO} }, nil, StateStalled, "start the stream"},
		"EIO in every stream": {
			func(_ *bench, k *v4l2test.Camera) {
				k.Errs[v4l2test.Dequeue] = []error{unix.EIO, unix.EIO, unix.EIO, unix.EIO}
			}, nil, StateStalled, "3 restarts"},
		"never a frame": {
			func(_ *bench, k *v4l2test.Camera) { k.Quiet = true }, func(_ *bench, k *v4l2test.Camera) { k.Quiet = false }, StateStalled, "no frame in time"},
	} {
		t.Run(name, func(t *testing.T) {
			b, k := newBench(t), v4l2test.NewCamera()
			b.plug(0, "1", "046d:085e", "A1", "Webcam", k)
			c.trouble(b, k)
			s := b.source(nil)
			f, err := s.Next(t.Context())
			if StateOf(err) != c.want || !errors.Is(err, sensors.ErrUnplugged) || !strings.Contains(err.Error(), c.says) || s.Stats().State != c.want {
				t.Fatalf("frame %v, state %s: %v", f, StateOf(err), err)
			}
			if c.mend != nil {
				c.mend(b, k)
			}
			mustNext(t, s).Release() // not told again, and it comes back by itself
			if s.Stats().State != StateRunning {
				t.Errorf("state %s with frames", s.Stats().State)
			}
		})
	}
}

func TestABrokenStreamIsRestarted(t *testing.T) {
	for name, breakIt := range map[string]func(k *v4l2test.Camera){
		"EIO":         func(k *v4l2test.Camera) { k.Errs[v4l2test.Dequeue] = []error{unix.EIO} },
		"wrong index": func(k *v4l2test.Camera) { k.Script = []v4l2test.Fill{{Index: 100}} },
		"format change": func(k *v4l2test.Camera) {
			k.W, k.H, k.Events, k.Quiet = 32, 16, 1, true
			time.AfterFunc(30*time.Millisecond, k.Speak)
		},
		"cannot queue":    func(k *v4l2test.Camera) { k.Errs[v4l2test.Queue] = []error{unix.EIO} },
		"quiet for a bit": func(k *v4l2test.Camera) { k.Quiet = true; time.AfterFunc(60*time.Millisecond, k.Speak) },
	} {
		t.Run(name, func(t *testing.T) {
			b, k := newBench(t), v4l2test.NewCamera()
			b.plug(0, "1", "046d:085e", "A1", "Webcam", k)
			s := b.source(nil)
			f := mustNext(t, s)
			k.Lock()
			breakIt(k)
			w := k.W
			k.Unlock()
			f.Release()
			again := mustNext(t, s)
			if again.Width != w || again.Seq <= 1 || s.Stats().Restarts == 0 {
				t.Errorf("width %d instead of %d, frame %d, %+v", again.Width, w, again.Seq, s.Stats())
			}
			again.Release()
		})
	}
}

func TestUnpluggedIsToldOnceAndMendsItself(t *testing.T) {
	b, k := newBench(t), v4l2test.NewCamera()
	b.plug(0, "1", "046d:085e", "A1", "Webcam", k)
	s := b.source(nil)
	for range 20 {
		f := mustNext(t, s)
		b.unplug(0)
		f2, err := s.Next(t.Context())
		if StateOf(err) != StateUnplugged {
			t.Fatalf("frame %v, %v", f2, err)
		}
		f.Release() // held across
		if k.Mapped != 0 {
			t.Fatalf("%d buffers stay mapped", k.Mapped)
		}
		k = v4l2test.NewCamera()
		b.plug(0, "1", "046d:085e", "A1", "Webcam", k)
	}
	mustNext(t, s).Release()
	if st := s.Stats(); st.Connects != 21 || st.Restarts != 0 {
		t.Errorf("%+v", st)
	}
}

func TestOnlyThePinnedCameraIsTaken(t *testing.T) {
	good := Pin{Place: porch, USB: "046d:085e", Serial: "A1", Card: "Webcam"}
	for name, c := range map[string]struct {
		port, usb, serial, card string
		pin                     Pin
		want                    State
	}{
		"the right one":                   {"1", "046d:085e", "A1", "Webcam", good, StateRunning},
		"another at the same place":       {"1", "1234:5678", "A1", "Webcam", good, StateSwapped},
		"its twin at the same place":      {"1", "046d:085e", "B2", "Webcam", good, StateSwapped},
		"another name at the same place":  {"1", "046d:085e", "A1", "Cam", good, StateSwapped},
		"the right one elsewhere":         {"2.3", "046d:085e", "A1", "Webcam", good, StateFake},
		"a clone's name elsewhere":        {"2.3", "dead:beef", "", "Webcam", good, StateFake},
		"a stranger elsewhere":            {"2.3", "dead:beef", "", "Other", good, StateUnplugged},
		"anything, pinned by place":       {"1", "dead:beef", "", "Other", Pin{Place: porch}, StateRunning},
		"anything, at the node":           {"2.3", "dead:beef", "", "Other", Pin{Node: "/dev/video0"}, StateRunning},
		"at the node, but not the serial": {"1", "046d:085e", "B2", "Webcam", Pin{Node: "/dev/video0", Serial: "A1"}, StateSwapped},
		"nothing at the node":             {"1", "046d:085e", "A1", "Webcam", Pin{Node: "/dev/video7"}, StateUnplugged},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.plug(0, c.port, c.usb, c.serial, c.card, v4l2test.NewCamera())
			s := b.source(func(o *Options) { o.Pin = c.pin })
			f, err := s.Next(t.Context())
			if StateOf(err) != c.want || (c.want == StateSwapped || c.want == StateFake) != errors.Is(err, ErrRefused) {
				t.Errorf("state %s: %v", StateOf(err), err)
			}
			if f != nil {
				f.Release()
			} else if b.Opens() > 0 {
				t.Error("a camera that is not meant was opened")
			}
		})
	}
}

func TestAnotherDeviceBehindTheNodeIsRefused(t *testing.T) {
	b := newBench(t)
	b.plug(0, "1", "046d:085e", "A1", "Webcam", v4l2test.NewCamera())
	b.kernel.Open = func(string) (Node, uint64, error) { return v4l2test.NewCamera(), unix.Mkdev(81, 9), nil }
	if _, err := b.source(nil).Next(t.Context()); StateOf(err) != StateRefused {
		t.Errorf("state %s: %v", StateOf(err), err)
	}
}

func TestCloseWakesNext(t *testing.T) {
	b, k := newBench(t), v4l2test.NewCamera()
	k.Quiet = true
	b.plug(0, "1", "046d:085e", "A1", "Webcam", k)
	s := b.source(func(o *Options) { o.Timeout = time.Hour })
	done := make(chan error)
	go func() {
		_, err := s.Next(context.Background())
		done <- err
	}()
	time.Sleep(20 * time.Millisecond)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v", err)
	}
	if _, err := s.Next(t.Context()); !errors.Is(err, os.ErrClosed) || !k.Closed || k.Mapped != 0 {
		t.Errorf("%v, closed %v, %d mapped", err, k.Closed, k.Mapped)
	}
}

func TestControlsAreSetAtEveryStart(t *testing.T) {
	b, k := newBench(t), v4l2test.NewCamera()
	b.plug(0, "1", "046d:085e", "A1", "Webcam", k)
	k.Refuses[controlIDs["focus"]] = true
	s := b.source(func(o *Options) { o.Controls = Profile{"exposure": 200, "exposure_auto": 1, "focus": 5} })
	mustNext(t, s).Release()
	if k.Controls[controlIDs["exposure"]] != 200 || k.Controls[controlIDs["exposure_auto"]] != 1 || !strings.Contains(s.Stats().Control, "focus") {
		t.Errorf("%v, %q", k.Controls, s.Stats().Control)
	}
	if got := (Profile{"exposure": 1, "exposure_auto": 1, "gain": 1, "focus_auto": 0}).order(); got[0] != "exposure_auto" || got[1] != "focus_auto" {
		t.Errorf("automatics must come first: %v", got)
	}
}

func TestDMABufIsOfTheFrame(t *testing.T) {
	b := newBench(t)
	b.plug(0, "1", "046d:085e", "A1", "Webcam", v4l2test.NewCamera())
	s := b.source(nil)
	f := mustNext(t, s)
	defer f.Release()
	if fd, err := s.DMABuf(f, 0); fd != 77 || err != nil {
		t.Errorf("%d, %v", fd, err)
	}
	if _, err := s.DMABuf(new(sensors.Frame), 0); err == nil {
		t.Error("a frame of somebody else has a DMABUF")
	}
}

func TestAForeignClockIsNotBelieved(t *testing.T) {
	b, k := newBench(t), v4l2test.NewCamera()
	k.Mono = false
	b.plug(0, "1", "046d:085e", "A1", "Webcam", k)
	s := b.source(nil)
	f := mustNext(t, s)
	defer f.Release()
	if s.Stats().Unstamped != 1 || time.Since(f.Captured) > time.Minute {
		t.Errorf("captured %v, %+v", f.Captured, s.Stats())
	}
}

func TestOptionsThatCannotBe(t *testing.T) {
	for _, o := range []Options{
		{}, {Pin: Pin{Place: "p"}, Format: 99}, {Pin: Pin{Place: "p"}, Width: 5}, {Pin: Pin{Place: "p"}, Width: -1, Height: -1},
		{Pin: Pin{Place: "p"}, Rate: -1}, {Pin: Pin{Place: "p"}, Buffers: 3}, {Pin: Pin{Place: "p"}, Buffers: 33}, {Pin: Pin{Place: "p"}, Timeout: -1},
		{Pin: Pin{Place: "p"}, Controls: Profile{"shutter": 1}}, {Pin: Pin{Place: "p"}, Code: "BA81"},
		{Pin: Pin{Place: "p"}, Format: sensors.YUYV, Code: "NV12"},
	} {
		if s, err := Open(o); err == nil {
			t.Errorf("%+v is accepted", o)
			_ = s.Close()
		}
	}
}

func TestAFrameCostsNoAllocation(t *testing.T) {
	b := newBench(t)
	b.plug(0, "1", "046d:085e", "A1", "Webcam", v4l2test.NewCamera())
	s := b.source(nil)
	mustNext(t, s).Release()
	if n := testing.AllocsPerRun(100, func() {
		f, err := s.Next(context.Background())
		if err == nil {
			f.Release()
		}
	}); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}
