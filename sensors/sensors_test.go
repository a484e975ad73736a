package sensors

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// wait bounds everything that must happen soon.
const wait = 10 * time.Second

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	t.Cleanup(cancel)
	return ctx
}

func mustPanic(t *testing.T, name, want string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if r, _ := recover().(string); !strings.Contains(r, want) {
			t.Errorf("%s: panic %q, want one about %q", name, r, want)
		}
	}()
	f()
}

func TestFrameGoesBackAfterTheLastRelease(t *testing.T) {
	p := NewPool(2)
	f, err := p.Get(bounded(t), 100)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Buffer()) < 100 || p.InUse() != 1 {
		t.Fatalf("buffer of %d bytes, %d in use", len(f.Buffer()), p.InUse())
	}
	f.Sensor, f.Label, f.FullRange, f.Planes[1].Data = "door", "a", true, []byte{1}
	f.Retain()
	f.Release()
	if p.InUse() != 1 {
		t.Fatal("frame went back while it was held")
	}
	f.Release()
	if p.InUse() != 0 {
		t.Fatal("frame did not go back")
	}
	mustPanic(t, "released too often", "released more often", f.Release)
	mustPanic(t, "retained too late", "retained after", func() { fresh := &Frame{}; fresh.Retain() })
}

func TestPoolGivesCleanFramesOfAnySize(t *testing.T) {
	p := NewPool(1)
	for _, size := range []int{0, 10, 1000, 5} {
		f, err := p.Get(bounded(t), size)
		if err != nil {
			t.Fatal(err)
		}
		if f.Sensor != "" || f.Label != "" || f.FullRange || f.Planes[0].Data != nil || len(f.Buffer()) < size {
			t.Fatalf("frame of %d bytes is not clean: %+v", size, f.Planes)
		}
		f.Sensor, f.Label, f.FullRange, f.Planes[0].Data = "s", "l", true, f.Buffer()
		f.Release()
	}
}

func TestPoolWipesABufferThatItOutgrows(t *testing.T) {
	p := NewPool(1)
	f, _ := p.Get(bounded(t), 8)
	small := f.Buffer()
	copy(small, "a face")
	f.Release()
	f, _ = p.Get(bounded(t), 1000)
	defer f.Release()
	for _, b := range small {
		if b != 0 {
			t.Fatalf("the old buffer still holds %q", small)
		}
	}
}

func TestPoolBlocksWhenAllFramesAreHeld(t *testing.T) {
	p := NewPool(1)
	held, err := p.Get(bounded(t), 8)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Get(ctx, 8); !errors.Is(err, context.Canceled) {
		t.Fatalf("with an ended context: %v", err)
	}
	got := make(chan *Frame)
	go func() {
		f, _ := p.Get(bounded(t), 8)
		got <- f
	}()
	held.Release()
	if f := <-got; f == nil {
		t.Fatal("Get did not wake")
	} else {
		f.Release()
	}
}

func TestPoolCloseWakesAndWipes(t *testing.T) {
	p := NewPool(2)
	free, _ := p.Get(bounded(t), 8)
	held, _ := p.Get(bounded(t), 8)
	a, b := free.Buffer(), held.Buffer()
	copy(a, "face one")
	copy(b, "face two")
	free.Release()
	waiting, _ := p.Get(bounded(t), 8)
	woken := make(chan error)
	go func() {
		_, err := p.Get(bounded(t), 8)
		woken <- err
	}()
	p.Close()
	if err := <-woken; !errors.Is(err, os.ErrClosed) {
		t.Fatalf("waiting Get: %v", err)
	}
	if string(b) != "face two" {
		t.Fatal("a held frame was wiped")
	}
	waiting.Release()
	held.Release()
	for _, v := range append(a, b...) {
		if v != 0 {
			t.Fatalf("left behind: %q %q", a, b)
		}
	}
	if _, err := p.Get(bounded(t), 8); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("Get after Close: %v", err)
	}
	p.Close()
}

func TestPoolAllocatesNothingInSteadyState(t *testing.T) {
	p := NewPool(2)
	ctx := bounded(t)
	if n := testing.AllocsPerRun(100, func() {
		f, err := p.Get(ctx, 4096)
		if err != nil {
			t.Fatal(err)
		}
		f.Release()
	}); n > 0 {
		t.Errorf("%v allocations per frame", n)
	}
}

func TestPoolIsSafeForManyHolders(t *testing.T) {
	p := NewPool(3)
	ctx := bounded(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				f, err := p.Get(ctx, 16)
				if err != nil {
					t.Error(err)
					return
				}
				f.Buffer()[0]++ // the race detector watches that a frame has one owner
				f.Retain()
				go f.Release()
				f.Release()
			}
		})
	}
	wg.Wait()
	for p.InUse() > 0 {
		runtime.Gosched()
	}
}

func TestFormatNames(t *testing.T) {
	for f, want := range map[Format]string{Gray8: "Gray8", RGB24: "RGB24", NV12: "NV12", YUYV: "YUYV", MJPEG: "MJPEG", 0: "Format(0)", 77: "Format(77)"} {
		if f.String() != want {
			t.Errorf("%d is %q, want %q", uint8(f), f, want)
		}
	}
}

func TestSkippedErrorNamesWhatAndWhy(t *testing.T) {
	err := error(&SkippedError{Name: "a.jpg", Err: os.ErrPermission})
	if err.Error() != "skipped a.jpg: permission denied" || !errors.Is(err, os.ErrPermission) {
		t.Error(err)
	}
}

// script is a source that plays what a test sends.
type script struct {
	pool   *Pool
	steps  chan func(*Pool) (*Frame, error)
	taken  chan struct{} // one token per step that was played and whose next one is being waited for
	closed atomic.Bool
}

func newScript() *script {
	return &script{pool: NewPool(4), steps: make(chan func(*Pool) (*Frame, error)), taken: make(chan struct{}, 100)}
}

func (s *script) Next(ctx context.Context) (*Frame, error) {
	s.taken <- struct{}{}
	select {
	case step := <-s.steps:
		return step(s.pool)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *script) Close() error { s.closed.Store(true); return nil }

// play sends a step and waits until Newest has taken its result and asks for more.
func (s *script) play(step func(*Pool) (*Frame, error)) {
	s.steps <- step
	<-s.taken
}

func frame(seq uint64) func(*Pool) (*Frame, error) {
	return func(p *Pool) (*Frame, error) {
		f, err := p.Get(context.Background(), 1)
		if err == nil {
			f.Seq = seq
		}
		return f, err
	}
}

func fails(err error) func(*Pool) (*Frame, error) {
	return func(*Pool) (*Frame, error) { return nil, err }
}

// startNewest returns a Newest over a script; at the end everything must have been given back.
func startNewest(t *testing.T) (*Newest, *script) {
	t.Helper()
	before := runtime.NumGoroutine()
	s := newScript()
	n := NewNewest(s)
	<-s.taken
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if err := n.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		if !s.closed.Load() || s.pool.InUse() != 0 {
			t.Errorf("source closed %v, %d frames held", s.closed.Load(), s.pool.InUse())
		}
		if _, err := n.Next(bounded(t)); err == nil {
			t.Error("Next after Close gave no error")
		}
		for limit := time.Now().Add(wait); runtime.NumGoroutine() > before; runtime.Gosched() { // the last one may still be returning
			if time.Now().After(limit) {
				t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
			}
		}
	})
	return n, s
}

func TestNewestHandsOutTheNewestAndCountsTheRest(t *testing.T) {
	n, s := startNewest(t)
	for seq := range uint64(10) {
		s.play(frame(seq + 1))
	}
	f, err := n.Next(bounded(t))
	if err != nil || f.Seq != 10 || n.Dropped() != 9 {
		t.Fatalf("frame %v, error %v, %d dropped; want the 10th and 9", f, err, n.Dropped())
	}
	if s.pool.InUse() != 1 {
		t.Errorf("%d frames held, want the one", s.pool.InUse())
	}
	s.play(frame(11)) // the consumer still holds the 10th
	f.Release()
	f, err = n.Next(bounded(t))
	if err != nil || f.Seq != 11 || n.Dropped() != 9 {
		t.Fatalf("frame %v, error %v, %d dropped", f, err, n.Dropped())
	}
	f.Release()
}

func TestNewestPrefersAFrameToNews(t *testing.T) {
	n, s := startNewest(t)
	s.play(frame(1))
	s.play(fails(&SkippedError{Name: "x", Err: io.ErrUnexpectedEOF}))
	s.play(fails(ErrUnplugged))
	f, err := n.Next(bounded(t))
	if err != nil || f.Seq != 1 {
		t.Fatalf("frame %v, error %v", f, err)
	}
	f.Release()
	s.play(fails(&SkippedError{Name: "y", Err: io.ErrUnexpectedEOF}))
	var skipped *SkippedError
	if _, err := n.Next(bounded(t)); !errors.As(err, &skipped) || skipped.Name != "y" {
		t.Fatalf("got %v, want that y was skipped", err)
	}
	s.play(fails(ErrUnplugged))
	if _, err := n.Next(bounded(t)); !errors.Is(err, ErrUnplugged) {
		t.Fatalf("got %v, want unplugged", err)
	}
	s.play(frame(2)) // it came back
	if f, err = n.Next(bounded(t)); err != nil || f.Seq != 2 {
		t.Fatalf("frame %v, error %v", f, err)
	}
	f.Release()
}

func TestNewestEnds(t *testing.T) {
	for _, end := range []error{io.EOF, errors.New("bus error")} {
		t.Run(end.Error(), func(t *testing.T) {
			n, s := startNewest(t)
			s.play(frame(1))
			s.steps <- fails(end)
			f, err := n.Next(bounded(t))
			if err != nil || f.Seq != 1 {
				t.Fatalf("the last frame was lost: %v", err)
			}
			f.Release()
			for range 3 {
				if _, err := n.Next(bounded(t)); !errors.Is(err, end) {
					t.Fatalf("got %v, want %v", err, end)
				}
			}
		})
	}
}

func TestNewestNextEndsWithTheContext(t *testing.T) {
	n, _ := startNewest(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := n.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

func TestNewestCloseWakesNext(t *testing.T) {
	n, _ := startNewest(t)
	woken := make(chan error)
	go func() {
		_, err := n.Next(bounded(t))
		woken <- err
	}()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-woken; !errors.Is(err, os.ErrClosed) {
		t.Fatalf("Next: %v", err)
	}
}

// endless is a camera that never rests.
type endless struct {
	pool *Pool
	seq  uint64
}

func (e *endless) Next(ctx context.Context) (*Frame, error) {
	f, err := e.pool.Get(ctx, 64)
	if err == nil {
		e.seq++
		f.Seq = e.seq
		f.Buffer()[0] = byte(e.seq)
	}
	return f, err
}

func (e *endless) Close() error { return nil }

func TestNewestUnderLoad(t *testing.T) {
	e := &endless{pool: NewPool(3)}
	n := NewNewest(e)
	var last, got uint64
	for got < 2000 {
		f, err := n.Next(bounded(t))
		if err != nil {
			t.Fatal(err)
		}
		if f.Seq <= last || f.Buffer()[0] != byte(f.Seq) {
			t.Fatalf("frame %d after %d, first byte %d", f.Seq, last, f.Buffer()[0])
		}
		last = f.Seq
		got++
		f.Release()
	}
	dropped := n.Dropped()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if dropped+got < last {
		t.Errorf("%d delivered and %d dropped do not make %d", got, dropped, last)
	}
	if e.pool.InUse() != 0 {
		t.Errorf("%d frames were not given back", e.pool.InUse())
	}
}
