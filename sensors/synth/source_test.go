package synth

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"vigil/sensors"
)

var _ sensors.Source = (*Source)(nil)

// small keeps the tests quick: little fingers, little pictures.
func small(o SourceOptions) SourceOptions {
	o.Name, o.Finger = "synthetic", Options{Width: 128, Height: 128}
	o.Impression = Preset(Easy)
	o.Impression.Width, o.Impression.Height = 64, 64
	return o
}

func open(t *testing.T, o SourceOptions) *Source {
	t.Helper()
	s, err := NewSource(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if n := s.pool.InUse(); n != 0 {
			t.Errorf("%d frames were not released", n)
		}
	})
	return s
}

func TestSourcePlaysFingerAfterFinger(t *testing.T) {
	o := small(SourceOptions{Seed: 100, Fingers: 2, Impressions: 3, FirstTouch: 7})
	s := open(t, o)
	g := NewGenerator()
	labels := []string{"100_7", "100_8", "100_9", "101_7", "101_8", "101_9"}
	for i, label := range labels {
		f, err := s.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if f.Label != label || f.Seq != uint64(i+1) || f.Sensor != "synthetic" || f.Format != sensors.Gray8 || !f.FullRange || f.Captured.IsZero() {
			t.Errorf("frame %d is %q, number %d of %q, %v", i, f.Label, f.Seq, f.Sensor, f.Format)
		}
		finger, err := g.Finger(100+uint64(i/3), o.Finger)
		if err != nil {
			t.Fatal(err)
		}
		want := impression(t, finger, 7+uint64(i%3), o.Impression)
		if f.Width != want.Width || f.Height != want.Height || f.Planes[0].StrideBytes != want.Width || !bytes.Equal(f.Planes[0].Data, want.Gray) {
			t.Errorf("frame %d is not the impression it should be", i)
		}
		f.Release()
	}
	for range 2 {
		if _, err := s.Next(t.Context()); !errors.Is(err, io.EOF) {
			t.Errorf("behind the end: %v", err)
		}
	}
}

func TestSourceLosesNothing(t *testing.T) {
	s := open(t, small(SourceOptions{Frames: 2, Impressions: 100}))
	a, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before := bytes.Clone(a.Planes[0].Data)
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.Next(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with all frames held: %v", err)
	}
	b.Release()
	c, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c.Seq != 3 || !bytes.Equal(before, a.Planes[0].Data) {
		t.Errorf("frame %d follows, or a held one has changed", c.Seq)
	}
	a.Release()
	c.Release()
}

func TestSourceKeepsItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := NewSource(small(SourceOptions{Rate: 2, Impressions: 10}))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		start := time.Now()
		for range 5 {
			f, err := s.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			f.Release()
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("five frames at 2 a second took %v", took)
		}
	})
}

func TestSourceCloseWakesNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, o := range map[string]SourceOptions{"pacing": {Rate: 0.001, Frames: 2}, "pool": {Frames: 1}} {
			s, err := NewSource(small(o))
			if err != nil {
				t.Fatal(err)
			}
			f, err := s.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			failed := make(chan error)
			go func() {
				_, err := s.Next(t.Context())
				failed <- err
			}()
			synctest.Wait()
			if err := errors.Join(s.Close(), s.Close()); err != nil {
				t.Error(err)
			}
			if err := <-failed; !errors.Is(err, os.ErrClosed) {
				t.Errorf("%s: a closed source said %v", name, err)
			}
			data := f.Planes[0].Data
			f.Release()
			if _, err := s.Next(t.Context()); !errors.Is(err, os.ErrClosed) {
				t.Errorf("%s: %v after Close", name, err)
			}
			if !bytes.Equal(data, make([]byte, len(data))) {
				t.Errorf("%s: a picture stays in memory", name)
			}
		}
	})
}

func TestSourceRefuses(t *testing.T) {
	for i, o := range []SourceOptions{{Fingers: -1}, {Impressions: -1}, {Frames: -1}, {Rate: -1}, {Rate: math.NaN()}, {Rate: math.Inf(1)},
		{Finger: Options{Class: 50}}, {Impression: ImpressionOptions{Width: 3}}} {
		if s, err := NewSource(o); err == nil || s != nil {
			t.Errorf("options %d are taken", i)
		}
	}
	s := open(t, small(SourceOptions{}))
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Next(over); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that is over: %v", err)
	}
}
