package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"vigil/sensors"
	"vigil/sensors/v4l2"
)

// The two cameras of vivid. They are at the same place, so their names tell them apart.
var (
	single = v4l2.Pin{Place: "platform-vivid.0-video-index0", Card: "vivid-000-vid-cap"}
	multi  = v4l2.Pin{Place: "platform-vivid.0-video-index0", Card: "vivid-001-vid-cap"}
)

// vividRate is what the cameras are asked for, in frames per second: an emulated machine is slower than the clock, so it
// is low enough that the driver itself keeps up.
const vividRate = 15

func cameraCases(o *order) []testCase {
	var all []testCase
	add := func(name string, limit time.Duration, run func(*order) (string, error)) {
		all = append(all, testCase{"camera", name, limit, run})
	}
	for _, s := range []struct {
		name string
		pin  v4l2.Pin
		f    sensors.Format
	}{
		{"YUYV", single, sensors.YUYV}, {"NV12", single, sensors.NV12}, {"GREY", single, sensors.Gray8}, {"RGB24", single, sensors.RGB24},
		{"YUYV-mplane", multi, sensors.YUYV}, {"NV12-mplane", multi, sensors.NV12}, {"GREY-mplane", multi, sensors.Gray8},
	} {
		add("stream "+s.name, o.each+30*time.Second, func(o *order) (string, error) { return streamVivid(o, s.pin, s.f) })
	}
	add("no copy, no allocation", time.Minute, noCopy)
	add("dmabuf export", time.Minute, dmabuf)
	add("held frames", time.Minute, heldFrames)
	add("controls", time.Minute, controlsKept)
	add("fatal stream error (EIO)", 2*time.Minute, fatalError)
	add("claimed by another (EBUSY)", time.Minute, claimed)
	add("format not offered", time.Minute, unsuited)
	add("fake and swapped camera", time.Minute, impostors)
	add("pair, matched time stamps", time.Minute, paired)
	add("replug vivid in mid-stream", time.Duration(o.cycles)*10*time.Second+time.Minute, replugVivid)
	return all
}

func openVivid(pin v4l2.Pin, f sensors.Format) (*v4l2.Source, error) {
	return v4l2.Open(v4l2.Options{
		Name: "cam", Pin: pin, Format: f, Width: 640, Height: 360, Rate: vividRate, Buffers: 8, Timeout: 10 * time.Second,
	})
}

// next is Next with a limit; a StateError is told, not swallowed.
func next(s sensors.Source, limit time.Duration) (*sensors.Frame, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return s.Next(ctx)
}

// vividPattern makes every row of a picture the same and moves it with every frame, so that a torn or stale one shows.
func vividPattern(pin v4l2.Pin) error {
	return errors.Join(setByName(pin, "Test Pattern", 0), setByName(pin, "OSD Text Mode", 2), setByName(pin, "Horizontal Movement", 5),
		setByName(pin, "Timestamp Source", 1)) // start of exposure: the age of a frame is more than its transport
}

// streamVivid streams one format and looks at every pixel of every frame.
func streamVivid(o *order, pin v4l2.Pin, f sensors.Format) (string, error) {
	if err := vividPattern(pin); err != nil {
		return "", err
	}
	s, err := openVivid(pin, f)
	if err != nil {
		return "", err
	}
	defer s.Close()
	var c checker
	var ages []time.Duration
	var began time.Time
	var end time.Time
	for end.IsZero() || time.Now().Before(end) {
		fr, err := next(s, 30*time.Second)
		if err != nil {
			return "", err
		}
		if end.IsZero() {
			began = time.Now()
			end = began.Add(o.each)
		}
		ages = append(ages, time.Since(fr.Captured))
		err = c.look(fr)
		fr.Release()
		if err != nil {
			return "", err
		}
	}
	secs, st := time.Since(began).Seconds(), s.Stats()
	slices.Sort(ages)
	note := fmt.Sprintf("%d frames at %.1f of %.0f fps, %d lost, %d torn, %d stale, %d let go, %d damaged; driver to us p50 %.1f ms p99 %.1f ms",
		st.Frames, float64(c.frames-1)/secs, st.Rate, st.Lost, c.torn, c.stale, st.LetGo, st.Damaged,
		ages[len(ages)/2].Seconds()*1e3, ages[len(ages)*99/100].Seconds()*1e3)
	if st.Lost+st.LetGo+st.Damaged+st.Restarts+st.Unstamped > 0 || c.torn+c.stale > 0 || c.frames < 5 {
		return note, fmt.Errorf("not every frame came whole (%d restarts, %d without time stamp, sequence lost at %v)", st.Restarts, st.Unstamped, c.gaps)
	}
	return note, nil
}

// checker compares frames of vividPattern.
type checker struct {
	frames, torn, stale int
	seq                 uint64
	gaps                []uint64
	last                []byte // the row of the frame before
}

func (c *checker) look(f *sensors.Frame) error {
	if f.Width != 640 || f.Height != 360 || len(f.Planes[0].Data) < f.Planes[0].StrideBytes*f.Height {
		return fmt.Errorf("frame %d is %dx%d with %d bytes", f.Seq, f.Width, f.Height, len(f.Planes[0].Data))
	}
	if c.frames > 0 && f.Seq != c.seq+1 {
		c.gaps = append(c.gaps, f.Seq)
	}
	c.frames, c.seq = c.frames+1, f.Seq
	for _, p := range f.Planes {
		for y := p.StrideBytes; y > 0 && y+p.StrideBytes <= len(p.Data); y += p.StrideBytes {
			if !bytes.Equal(p.Data[:p.StrideBytes], p.Data[y:y+p.StrideBytes]) {
				c.torn++
				break
			}
		}
	}
	row := f.Planes[0].Data[:f.Planes[0].StrideBytes]
	if bytes.Equal(row, c.last) {
		c.stale++
	}
	c.last = append(c.last[:0], row...)
	return nil
}

// noCopy shows that planes lie in the mapping of the device, and that a frame costs no allocation.
func noCopy(*order) (string, error) {
	s, err := openVivid(multi, sensors.NV12)
	if err != nil {
		return "", err
	}
	defer s.Close()
	inside := 0
	const frames = 20
	var before, after runtime.MemStats
	for i := range 2 * frames {
		if i == frames {
			runtime.ReadMemStats(&before)
		}
		f, err := s.Next(context.Background())
		if err != nil {
			return "", err
		}
		if i < frames && inMapping(f.Planes[0].Data) && inMapping(f.Planes[1].Data) {
			inside++
		}
		f.Release()
	}
	runtime.ReadMemStats(&after)
	per := float64(after.Mallocs-before.Mallocs) / frames
	note := fmt.Sprintf("%d of %d frames lie in the mapping of the device: 0 copies; %.1f allocations a frame", inside, frames, per)
	if inside != frames || per >= 0.5 {
		return note, errors.New("copied or allocated")
	}
	return note, nil
}

func dmabuf(*order) (string, error) {
	s, err := openVivid(single, sensors.YUYV)
	if err != nil {
		return "", err
	}
	defer s.Close()
	f, err := next(s, 20*time.Second)
	if err != nil {
		return "", err
	}
	defer f.Release()
	fd, err := s.DMABuf(f, 0)
	if err != nil {
		return "", err
	}
	return sameMemory(fd, f.Planes[0].Data)
}

// heldFrames keeps all frames that it can get, and looks whether the driver goes on and the held ones stay as they are.
func heldFrames(*order) (string, error) {
	if err := vividPattern(single); err != nil {
		return "", err
	}
	s, err := openVivid(single, sensors.Gray8)
	if err != nil {
		return "", err
	}
	defer s.Close()
	var held []*sensors.Frame
	var sums []uint64
	for range 6 { // 8 buffers, 2 stay with the driver
		f, err := next(s, 20*time.Second)
		if err != nil {
			return "", err
		}
		held, sums = append(held, f), append(sums, sum(f.Planes[0].Data))
	}
	if _, err := next(s, time.Second); !errors.Is(err, context.DeadlineExceeded) {
		return "", fmt.Errorf("a frame came although the driver has only two buffers: %v", err)
	}
	letGo := s.Stats().LetGo
	for i, f := range held {
		if sum(f.Planes[0].Data) != sums[i] {
			return "", fmt.Errorf("held frame %d was overwritten", f.Seq)
		}
		f.Release()
	}
	f, err := next(s, 5*time.Second)
	if err != nil {
		return "", err
	}
	f.Release()
	st := s.Stats()
	note := fmt.Sprintf("6 frames held, %d let go meanwhile, %d lost, held ones unchanged", letGo, st.Lost)
	if letGo == 0 || st.Lost > 0 || st.Restarts > 0 {
		return note, errors.New("the driver was starved")
	}
	return note, nil
}

func controlsKept(*order) (string, error) {
	s, err := v4l2.Open(v4l2.Options{Name: "cam", Pin: single, Controls: v4l2.Profile{"brightness": 77, "focus": 3}})
	if err != nil {
		return "", err
	}
	defer s.Close()
	f, err := next(s, 20*time.Second)
	if err != nil {
		return "", err
	}
	f.Release()
	id, err := find(single)
	if err != nil {
		return "", err
	}
	info, err := v4l2.Inspect(id)
	if err != nil {
		return "", err
	}
	for _, c := range info.Controls {
		if c.Name == "brightness" && c.At == 77 && strings.Contains(s.Stats().Control, "focus") {
			return fmt.Sprintf("brightness is 77; a control it has not is told: %s; %d formats offered", s.Stats().Control, len(info.Offers)), nil
		}
	}
	return "", fmt.Errorf("controls %+v, told %q", info.Controls, s.Stats().Control)
}

func find(p v4l2.Pin) (v4l2.Identity, error) {
	all, err := v4l2.List()
	for _, id := range all {
		if id.Place == p.Place && id.Card == p.Card {
			return id, nil
		}
	}
	return v4l2.Identity{}, fmt.Errorf("nothing at %s: %+v %v", p.Place, all, err)
}

func fatalError(*order) (string, error) {
	s, err := openVivid(single, sensors.YUYV)
	if err != nil {
		return "", err
	}
	defer s.Close()
	const times = 10
	for range times {
		f, err := next(s, 20*time.Second)
		if err != nil {
			return "", err
		}
		f.Release()
		if err := setByName(single, "Inject Fatal Streaming Error", 1); err != nil {
			return "", err
		}
	}
	f, err := next(s, 20*time.Second)
	if err != nil {
		return "", err
	}
	f.Release()
	if n := s.Stats().Restarts; n != times {
		return "", fmt.Errorf("%d restarts after %d errors", n, times)
	}
	return fmt.Sprintf("%d injected, %d restarts, frames came again each time", times, times), nil
}

func claimed(*order) (string, error) {
	release, err := claim(single)
	if err != nil {
		return "", err
	}
	s, err := openVivid(single, sensors.YUYV)
	if err != nil {
		return "", err
	}
	defer s.Close()
	if _, err := next(s, 10*time.Second); v4l2.StateOf(err) != v4l2.StateBusy {
		release()
		return "", fmt.Errorf("state %s: %v", v4l2.StateOf(err), err)
	}
	release()
	f, err := next(s, 10*time.Second)
	if err != nil {
		return "", err
	}
	f.Release()
	return "named busy; running once the other let go", nil
}

func unsuited(*order) (string, error) {
	s, err := openVivid(single, sensors.MJPEG)
	if err != nil {
		return "", err
	}
	defer s.Close()
	_, err = next(s, 10*time.Second)
	if v4l2.StateOf(err) != v4l2.StateUnsuited {
		return "", fmt.Errorf("state %s: %v", v4l2.StateOf(err), err)
	}
	return err.Error(), nil
}

// impostors pins cameras that are not there, while ones that look right are.
func impostors(*order) (string, error) {
	id, err := find(single)
	if err != nil {
		return "", err
	}
	for _, p := range []v4l2.Pin{
		{Place: "pci-0000:00:14.0-usb-0:1:1.0-video-index0", Card: id.Card}, // right name, wrong place
		{Place: single.Place, Card: "another"},                              // right place, wrong name
		{Place: single.Place, USB: "046d:085e"},                             // right place, no USB device
	} {
		s, err := v4l2.Open(v4l2.Options{Name: "cam", Pin: p})
		if err != nil {
			return "", err
		}
		_, err = next(s, 10*time.Second)
		_ = s.Close()
		if s := v4l2.StateOf(err); s != v4l2.StateFake && s != v4l2.StateSwapped || !errors.Is(err, v4l2.ErrRefused) {
			return "", fmt.Errorf("pin %+v: state %s: %v", p, v4l2.StateOf(err), err)
		}
	}
	return "name at the wrong place, other name and other bus at the right place: all refused", nil
}

func paired(*order) (string, error) {
	a, err := openVivid(single, sensors.YUYV)
	if err != nil {
		return "", err
	}
	b, err := openVivid(multi, sensors.Gray8)
	if err != nil {
		return "", err
	}
	p, err := v4l2.NewPair(a, b, time.Second/vividRate/2)
	if err != nil {
		return "", err
	}
	defer p.Close()
	var worst time.Duration
	const pairs = 30
	for range pairs {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		x, y, err := p.Next(ctx)
		cancel()
		if err != nil {
			return "", err
		}
		worst = max(worst, x.Captured.Sub(y.Captured).Abs())
		x.Release()
		y.Release()
	}
	return fmt.Sprintf("%d pairs, at most %.1f ms apart, %d frames without a partner", pairs, worst.Seconds()*1e3, p.Unmatched()), nil
}

// replugVivid takes the camera away in mid-stream and gives it back, again and again.
func replugVivid(o *order) (string, error) {
	s, err := openVivid(single, sensors.YUYV)
	if err != nil {
		return "", err
	}
	defer s.Close()
	return replug(s, o.cycles, func() error { return bind("unbind") }, func() error { return bind("bind") })
}

func bind(what string) error {
	return os.WriteFile("/sys/bus/platform/drivers/vivid/"+what, []byte("vivid.0"), 0)
}

// replug runs cycles of: a frame, held; unplugged, told; plugged in, a frame. At the end nothing may be left over.
func replug(s *v4l2.Source, cycles int, out, in func() error) (string, error) {
	var before, after usage
	var worst time.Duration
	for i := range cycles + 1 {
		f, err := first(s)
		if err != nil {
			return "", fmt.Errorf("cycle %d: %w", i, err)
		}
		if i == 1 {
			f.Release()
			before = measure()
			if f, err = next(s, 30*time.Second); err != nil {
				return "", err
			}
		}
		if i == cycles {
			f.Release()
			break
		}
		if err := out(); err != nil {
			return "", fmt.Errorf("cycle %d: cannot unplug: %w", i, err)
		}
		pixel := f.Planes[0].Data[0]                   // held across the unplug: must still be there
		for err = nil; err == nil || isSkipped(err); { // the picture that was on its way may come damaged
			var more *sensors.Frame
			if more, err = next(s, 30*time.Second); err == nil {
				more.Release()
			}
		}
		if v4l2.StateOf(err) != v4l2.StateUnplugged || f.Planes[0].Data[0] != pixel {
			return "", fmt.Errorf("cycle %d: state %s: %w", i, v4l2.StateOf(err), err)
		}
		f.Release()
		if err := in(); err != nil {
			return "", fmt.Errorf("cycle %d: cannot plug in: %w", i, err)
		}
		began := time.Now()
		if f, err = first(s); err != nil {
			return "", fmt.Errorf("cycle %d: %w", i, err)
		}
		worst = max(worst, time.Since(began))
		f.Release()
	}
	after = measure()
	st := s.Stats()
	note := fmt.Sprintf("%d cycles, %d opens, back within %.1f s; descriptors %d -> %d, mappings %d -> %d, goroutines %d -> %d",
		cycles, st.Connects, worst.Seconds(), before.files, after.files, before.maps, after.maps, before.goroutines, after.goroutines)
	if after != before {
		return note, errors.New("something is left over")
	}
	return note, nil
}
