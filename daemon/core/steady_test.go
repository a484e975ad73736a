package core_test

import (
	"errors"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"vigil/daemon/config"
	"vigil/daemon/daemontest"
	"vigil/infer/infertest"
	"vigil/secure/mem"
	"vigil/sensors"
	"vigil/sensors/replay"
)

// usage is what must not grow.
type usage struct {
	goroutines, descriptors int
	residentBytes           int64
	locked                  int64
	mallocs                 uint64
	frames                  uint64
}

func measure(t *testing.T, frames uint64) usage {
	t.Helper()
	runtime.GC()
	runtime.GC()
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	_, locked := mem.Live()
	goroutines := runtime.NumGoroutine()
	for range 20 { // one that is just ending is no leak
		time.Sleep(5 * time.Millisecond)
		goroutines = min(goroutines, runtime.NumGoroutine())
	}
	return usage{goroutines, len(fds), pages * int64(os.Getpagesize()), locked, ms.Mallocs, frames}
}

// TestSteadyState lets a camera run: after a warm-up, goroutines, descriptors, locked and resident memory stay where
// they are. `make soak` runs it over 10,000 frames.
func TestSteadyState(t *testing.T) {
	frames := uint64(300)
	if text := os.Getenv("VIGIL_SOAK_FRAMES"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		frames = n
	}
	d := daemontest.NewWithModel(t)
	a := d.Open(t)
	defer closeApp(t, a)
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	cam := config.Sensor{Name: "door", Driver: "replay", Path: infertest.Data(t, "clips", "P1", "help.15fps.mjpeg"), Step: true, Loop: true}
	if err := a.AddSensor(t.Context(), cam); err != nil {
		t.Fatal(err)
	}
	wait := func(n uint64) uint64 {
		for {
			if f := a.Status().Sensors[0].Frames; f >= n {
				return f
			}
			if t.Context().Err() != nil {
				t.Fatal("the test ran out of time")
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	warm := frames / 5
	start := time.Now()
	before := measure(t, wait(warm))
	after := measure(t, wait(warm+frames))
	n := after.frames - before.frames
	t.Logf("%d frames in %.0f s: goroutines %d -> %d, descriptors %d -> %d, locked %d -> %d bytes, resident %.1f -> %.1f MiB, %.1f allocations a frame (JPEG decoding included)",
		n, time.Since(start).Seconds(), before.goroutines, after.goroutines, before.descriptors, after.descriptors,
		before.locked, after.locked, float64(before.residentBytes)/(1<<20), float64(after.residentBytes)/(1<<20), float64(after.mallocs-before.mallocs)/float64(n))
	if after.goroutines > before.goroutines || after.descriptors > before.descriptors || after.locked > before.locked {
		t.Errorf("grown: %+v -> %+v", before, after)
	}
	const slack = 24 << 20 // the heap breathes, and the race detector's shadow memory with it
	if grown := after.residentBytes - before.residentBytes; grown > slack {
		t.Errorf("resident memory grew by %d bytes over %d frames", grown, n)
	}
}

// frames decodes the first n pictures of a clip, to be shown again and again.
func frames(t testing.TB, n int) []*sensors.Frame {
	src, err := replay.Open(replay.Options{Name: "bench", Path: infertest.Data(t, "clips", "P1", "help.15fps.mjpeg"), Step: true, Frames: n})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	})
	var list []*sensors.Frame
	for range n {
		f, err := src.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, f)
	}
	return list
}

func TestTheFramePathAllocatesNothing(t *testing.T) {
	d := daemontest.NewWithModel(t)
	a := d.Open(t)
	defer closeApp(t, a)
	path, list := a.FramePath(), frames(t, 8)
	show := func() {
		for _, f := range list {
			f.Captured = time.Now()
			path(t.Context(), f)
		}
	}
	show() // the visit is announced once; then nothing is to be said
	if n := testing.AllocsPerRun(5, show); n > 0 {
		t.Errorf("%.1f allocations in %d frames of steady state, must be none", n, len(list))
	}
}

// BenchmarkFrame is one frame from capture to "nothing to announce": detect, align, quality, embed, search, track.
func BenchmarkFrame(b *testing.B) {
	d := daemontest.NewWithModel(b)
	a := d.Open(b)
	defer closeApp(b, a)
	path, list := a.FramePath(), frames(b, 8)
	for _, f := range list {
		path(b.Context(), f)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		f := list[i%len(list)]
		f.Captured = time.Now()
		path(b.Context(), f)
	}
}
