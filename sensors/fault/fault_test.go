package fault

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"vigil/sensors"
)

// camera gives n frames of 64 bytes, all 7.
type camera struct {
	pool *sensors.Pool
	n    uint64
	left int
}

func (c *camera) Next(ctx context.Context) (*sensors.Frame, error) {
	if c.left == 0 {
		return nil, io.EOF
	}
	f, err := c.pool.Get(ctx, 64)
	if err != nil {
		return nil, err
	}
	c.left--
	c.n++
	f.Seq, f.Captured, f.Width, f.Height, f.Format = c.n, time.Now(), 8, 8, sensors.Gray8
	f.Planes[0] = sensors.Plane{Data: f.Buffer()[:64], StrideBytes: 8}
	for i := range f.Planes[0].Data {
		f.Planes[0].Data[i] = 7
	}
	return f, nil
}

func (c *camera) Close() error { c.pool.Close(); return nil }

func open(t *testing.T, n int, script string, o Options) (*Source, *camera) {
	t.Helper()
	s, err := Parse(script)
	if err != nil {
		t.Fatal(err)
	}
	c := &camera{pool: sensors.NewPool(3), left: n}
	o.Script = s
	f := New(c, o)
	t.Cleanup(func() {
		if err := errors.Join(f.Close(), f.Close()); err != nil {
			t.Error(err)
		}
		if c.pool.InUse() != 0 {
			t.Errorf("%d frames are still held", c.pool.InUse())
		}
	})
	return f, c
}

// now waits for nothing and notes how long it would have been.
func now(total *time.Duration) func(context.Context, time.Duration) error {
	return func(_ context.Context, d time.Duration) error { *total += d; return nil }
}

// play runs a source to its end.
func play(t *testing.T, s sensors.Source) (seqs []uint64, data []byte, unplugged, failed int) {
	t.Helper()
	for range 100000 {
		f, err := s.Next(t.Context())
		switch {
		case err == nil:
			seqs, data = append(seqs, f.Seq), append(data, f.Planes[0].Data...)
			f.Release()
		case errors.Is(err, io.EOF):
			return
		case errors.Is(err, sensors.ErrUnplugged):
			unplugged++
		case errors.Is(err, ErrInjected):
			failed++
		default:
			t.Fatal(err)
		}
	}
	t.Fatal("no end")
	return
}

func TestScriptsDoWhatTheySay(t *testing.T) {
	var waited time.Duration
	s, _ := open(t, 10, "drop 2-3 # two\nstall 4 for 200ms\nunplug 6 for 1s\nfail 8\ncut 9 bytes 60\ncorrupt 10 bytes 1", Options{Wait: now(&waited)})
	seqs, data, unplugged, failed := play(t, s)
	if !reflect.DeepEqual(seqs, []uint64{1, 4, 5, 7, 9, 10}) || unplugged != 1 || failed != 1 || waited != 1200*time.Millisecond {
		t.Errorf("frames %v, %d unplugged, %d failed, waited %v", seqs, unplugged, failed, waited)
	}
	other := 0
	for _, b := range data {
		if b != 7 {
			other++
		}
	}
	if len(data) != 5*64+4 || other != 1 {
		t.Errorf("%d bytes, %d of them changed", len(data), other)
	}
	if got := s.Stats(); got != (Stats{Frames: 6, Dropped: 2, Stalled: 1, Corrupted: 2, Unplugged: 1, Failed: 1}) {
		t.Errorf("%+v", got)
	}
}

func TestTheSeedDecides(t *testing.T) {
	run := func(seed uint64) ([]uint64, []byte) {
		s, _ := open(t, 200, "drop 1- chance 0.3\ncorrupt 10- every 3 bytes 5", Options{Seed: seed})
		seqs, data, _, _ := play(t, s)
		return seqs, data
	}
	a, x := run(1)
	b, y := run(1)
	c, _ := run(2)
	if !reflect.DeepEqual(a, b) || !bytes.Equal(x, y) || reflect.DeepEqual(a, c) || len(a) < 100 || len(a) > 180 {
		t.Errorf("%d frames, %d again, %d with another seed", len(a), len(b), len(c))
	}
}

// TestUnpluggedAHundredTimes in mid-stream, alone and behind Newest as a camera is: no frame, goroutine or memory is left,
// and frames come again each time. Newest may let a frame hide the news, so the times are counted without it.
func TestUnpluggedAHundredTimes(t *testing.T) {
	const script = "unplug 10- every 9 for 1ms\ncorrupt 5- every 7 bytes 3\nstall 3- every 11 for 100us"
	for name, wrap := range map[string]func(sensors.Source) sensors.Source{
		"alone":  func(s sensors.Source) sensors.Source { return s },
		"newest": func(s sensors.Source) sensors.Source { return sensors.NewNewest(s) },
	} {
		before := runtime.NumGoroutine()
		s, c := open(t, 1000, script, Options{})
		src := wrap(s)
		frames, unplugged, back := cycles(t, src)
		if err := src.Close(); err != nil {
			t.Fatal(err)
		}
		got := s.Stats()
		if got.Unplugged < 100 || frames == 0 || c.pool.InUse() != 0 || name == "alone" && (unplugged != int(got.Unplugged) || back < unplugged-1) {
			t.Errorf("%s: %+v; %d frames seen, %d times unplugged, %d times back, %d held", name, got, frames, unplugged, back, c.pool.InUse())
		}
		for limit := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
			if time.Now().After(limit) {
				t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
			}
		}
	}
}

// cycles plays a source to its end and counts how often it went and came back.
func cycles(t *testing.T, src sensors.Source) (frames, unplugged, back int) {
	t.Helper()
	for away := false; ; {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		f, err := src.Next(ctx)
		cancel()
		switch {
		case errors.Is(err, io.EOF):
			return frames, unplugged, back
		case errors.Is(err, sensors.ErrUnplugged):
			away = true
			unplugged++
		case err != nil:
			t.Fatal(err)
		default:
			f.Release()
			frames++
			if away {
				back++
			}
			away = false
		}
	}
}

func TestCloseWakesAWait(t *testing.T) {
	for _, script := range []string{"stall 1 for 1h", "unplug 1 for 1h"} {
		s, _ := open(t, 5, script, Options{})
		if script[0] == 'u' {
			if _, err := s.Next(t.Context()); !errors.Is(err, sensors.ErrUnplugged) {
				t.Fatal(err)
			}
		}
		woken := make(chan error)
		go func() { _, err := s.Next(t.Context()); woken <- err }()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-woken; !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: %v", script, err)
		}
	}
	s, _ := open(t, 5, "stall 1 for 1h", Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a context that ends: %v", err)
	}
}

var refused = map[string]string{
	"explode 1":                           "drop, stall",
	"drop":                                "frames are missing",
	"drop 0":                              "counted from 1",
	"drop 5-3":                            "counted from 1",
	"drop -":                              "counted from 1",
	"stall 1":                             "for DURATION",
	"drop 1 for 1s":                       "belongs to stall",
	"drop 1 bytes 3":                      "belongs to corrupt",
	"drop 1 every":                        "no value",
	"drop 1 every 0":                      "every N from 1",
	"drop 1 chance 2":                     "chance",
	"drop 1 chance NaN":                   "chance",
	"drop 1 every 2 every 3":              "twice",
	"drop 1 sometimes 3":                  "every, chance",
	"stall 1 for 9h":                      "for DURATION",
	"drop 1\ndrop x":                      "line 2",
	strings.Repeat("drop 1\n", 1001):      "more than 1000",
	strings.Repeat("#", maxScriptBytes+1): "at most",
}

func TestParseRefuses(t *testing.T) {
	for script, want := range refused {
		if _, err := Parse(script); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v, want one about %q", script, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("drop 2-3 # two\nstall 4 for 200ms\nunplug 6- every 9 for 1s\ncorrupt 1- chance 0.25 bytes 16\ncut 9 bytes 60\nfail 8")
	for script := range refused {
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		for i := range s {
			step := &s[i]
			timed := step.Kind == Stall || step.Kind == Unplug
			if step.First < 1 || step.Last < step.First || timed != (step.For > 0) || !step.meets(step.First) || step.Chance < 0 || step.Chance > 1 {
				t.Fatalf("%q gave %+v", text, step)
			}
		}
	})
}
