package sched

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// shop is an executor that takes as long as a table says, in the fake time of a synctest bubble, and keeps what it did.
type shop struct {
	took func(size int) time.Duration
	mu   sync.Mutex
	did  [][]string // batches, in the order in which they began
	fail error
}

func (x *shop) Run(_ int, batch []string) error {
	x.mu.Lock()
	x.did = append(x.did, slices.Clone(batch))
	x.mu.Unlock()
	time.Sleep(x.took(len(batch)))
	return x.fail
}

func (x *shop) order() (list []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, b := range x.did {
		list = append(list, b...)
	}
	return list
}

// each is a shop that takes so long per job.
func each(d time.Duration) *shop {
	return &shop{took: func(n int) time.Duration { return time.Duration(n) * d }}
}

var places = [Classes]int{64, 64, 64}

// warm is a curve of the given times at sizes 1, 2, ...
func warm(times ...time.Duration) (c Curve) {
	for i, d := range times {
		for range memory {
			c.Observe(i+1, d)
		}
	}
	return c
}

func open(t *testing.T, x Executor[string], o Options) *Scheduler[string] {
	t.Helper()
	s, err := New(x, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func shut[J comparable](t *testing.T, s *Scheduler[J]) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for i := range s.queue {
		if s.queue[i].n != 0 || s.queue[i].head != nil {
			t.Errorf("class %v: %d places are taken after the end", Class(i), s.queue[i].n)
		}
	}
	for _, tk := range s.spare {
		if len(tk.done) != 0 || tk.state != free || tk.job != *new(J) {
			t.Errorf("a ticket went back as %+v", tk)
		}
	}
}

// in is a deadline.
func in(d time.Duration) time.Time { return time.Now().Add(d) }

// refusal is the refusal of an error.
func refusal(t *testing.T, err error) *Refusal {
	t.Helper()
	var r *Refusal
	if !errors.As(err, &r) {
		t.Fatalf("%v is no refusal", err)
	}
	return r
}

func TestClassesAndAgeing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := each(100 * ms)
		s := open(t, x, Options{Places: places})
		var wg sync.WaitGroup
		submit := func(name string, c Class) {
			wg.Go(func() {
				if err := s.Do(t.Context(), c, time.Time{}, name); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
			synctest.Wait()
		}
		submit("first", Sensor) // takes the worker
		submit("bulk", Bulk)
		submit("api", API)
		submit("sensor", Sensor)
		for i := range 80 { // a sensor that wants more than the engine has
			time.Sleep(75 * ms)
			submit(fmt.Sprint("s", i), Sensor)
		}
		wg.Wait()
		order := x.order()
		at := func(name string) int { return slices.Index(order, name) }
		if at("sensor") != 1 {
			t.Errorf("the sensor's frame did not go first: %v", order)
		}
		// The API yields to the frames of half a second after it (s0 to s5), bulk to those of five seconds (s0 to s65).
		if at("api") != at("s5")+1 {
			t.Errorf("the API's request ran at %d: %v", at("api"), order)
		}
		if at("bulk") != at("s65")+1 {
			t.Errorf("bulk ran at %d, s65 at %d: %v", at("bulk"), at("s65"), order)
		}
		shut(t, s)
	})
}

func TestAdmissionRefusesWhoCannotMakeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := each(100 * ms)
		s := open(t, x, Options{Places: places, Curve: warm(100 * ms)})
		var wg sync.WaitGroup
		var late []*Refusal
		for i := range 8 {
			p, err := s.Reserve(API, in(450*ms))
			if err != nil {
				late = append(late, refusal(t, err))
				continue
			}
			wg.Go(func() {
				if err := p.Run(t.Context(), fmt.Sprint(i)); err != nil {
					t.Errorf("%d was admitted: %v", i, err)
				}
			})
			synctest.Wait()
		}
		if len(late) != 4 { // 100, 200, 300, 400 ms make it
			t.Fatalf("%d were refused, must be 4: %v", len(late), late)
		}
		r := late[0]
		if r.Reason != ReasonDeadline || r.Class != API || !near(r.Needs, 500*ms, 0.1) || !near(r.Has, 450*ms, 0.01) {
			t.Errorf("%+v", r)
		}
		if r.RetryAfter() < 50*ms || r.RetryAfter() > 100*ms {
			t.Errorf("retry after %v, there is room after 50 ms", r.RetryAfter())
		}
		time.Sleep(r.RetryAfter())
		wg.Go(func() {
			if err := s.Do(t.Context(), API, in(450*ms), "again"); err != nil {
				t.Errorf("tried again when it was told to: %v", err)
			}
		})
		wg.Wait()
		st := s.Stats().Class[API]
		if st.Done != 5 || st.Late != 0 || st.Refused[ReasonDeadline] != 4 || st.Queue.Count != 5 || st.Service.Count != 5 {
			t.Errorf("counted %+v", st)
		}
		shut(t, s)
	})
}

func TestAdmissionCountsWorkersAndTheClassAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, each(100*ms), Options{Places: places, Workers: 2, Curve: warm(100 * ms)})
		var wg sync.WaitGroup
		for range 4 { // two run, two wait
			p, err := s.Reserve(Bulk, time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() { p.Run(t.Context(), "b") })
			synctest.Wait()
		}
		now := time.Now()
		s.mu.Lock()
		for c, want := range []time.Duration{200 * ms, 200 * ms, 300 * ms} { // bulk waits, the others pass it
			if got, _ := s.needs(Class(c), now); !near(got, want, 0.1) {
				t.Errorf("class %v needs %v, want %v", Class(c), got, want)
			}
		}
		s.mu.Unlock()
		wg.Wait()
		shut(t, s)
	})
}

func TestAdmissionExpectsWhoWillOvertake(t *testing.T) {
	var s Scheduler[int]
	s.o.HeadStart = HeadStarts
	now := time.Unix(1000, 0)
	for i := range 100 { // five frames a second of 100 ms each: half of the engine
		s.rates[Sensor].arrive(now.Add(time.Duration(i) * 200 * ms))
	}
	now = now.Add(100 * 200 * ms)
	if got := s.overtaken(Sensor, 1, 0.1, now); got != 0 {
		t.Errorf("sensors yield to nobody: %v", got)
	}
	// Of half an engine the wait of 0.1 s becomes 0.2; a long one grows by the half second of head start at most.
	if got := s.overtaken(API, 0.1, 0.1, now); got < 0.07 || got > 0.13 {
		t.Errorf("the API is overtaken for %.3f s", got)
	}
	if got := s.overtaken(API, 10, 0.1, now); got < 0.2 || got > 0.3 {
		t.Errorf("the API is overtaken for %.3f s", got)
	}
}

func TestPlacesAreBoundedPerClass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, each(time.Second), Options{Places: [Classes]int{1, 2, 0}, Curve: warm(time.Second)})
		var wg sync.WaitGroup
		for _, w := range []struct {
			class Class
			full  bool
		}{{API, false}, {API, false}, {API, false}, {API, true}, {Bulk, true}, {Sensor, false}, {Sensor, true}} {
			p, err := s.Reserve(w.class, time.Time{})
			if full := err != nil; full != w.full {
				t.Errorf("%v: %v", w.class, err)
			}
			if err != nil {
				if r := refusal(t, err); r.Reason != ReasonFull || r.RetryAfter() < 900*ms || r.RetryAfter() > 1100*ms {
					t.Errorf("%+v: try again when the run ends", r)
				}
				continue
			}
			wg.Go(func() { p.Run(t.Context(), "x") })
			synctest.Wait()
		}
		wg.Wait()
		shut(t, s)
	})
}

func TestWhoGoesAwayFreesThePlaceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := each(time.Second)
		s := open(t, x, Options{Places: [Classes]int{0, 1, 0}})
		var wg sync.WaitGroup
		wg.Go(func() { s.Do(t.Context(), API, time.Time{}, "runs") })
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() {
			if err := s.Do(ctx, API, time.Time{}, "leaves"); !errors.Is(err, context.Canceled) {
				t.Errorf("left with %v", err)
			}
		})
		synctest.Wait()
		if _, err := s.Reserve(API, time.Time{}); err == nil {
			t.Error("there was a place too many")
		}
		cancel()
		synctest.Wait()
		p, err := s.Reserve(API, time.Time{})
		if err != nil {
			t.Fatalf("the place was not freed: %v", err)
		}
		p.Cancel()
		p.Cancel()
		wg.Go(func() { s.Do(t.Context(), API, time.Time{}, "stays") })
		wg.Wait()
		if got := x.order(); !slices.Equal(got, []string{"runs", "stays"}) {
			t.Errorf("ran %v", got)
		}
		if st := s.Stats().Class[API]; st.Left != 2 || st.Done != 2 {
			t.Errorf("counted %+v", st)
		}
		shut(t, s)
	})
}

func TestACancelledRunIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, each(time.Second), Options{Places: places})
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		time.AfterFunc(100*ms, cancel)
		if err := s.Do(ctx, API, time.Time{}, "x"); err != nil || time.Since(start) != time.Second {
			t.Errorf("returned %v after %v: the job's memory was still in use", err, time.Since(start))
		}
		shut(t, s)
	})
}

func TestDeadlinesThatPassWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := each(time.Second) // five times as slow as the curve knows
		s := open(t, x, Options{Places: places, Curve: warm(200 * ms)})
		var wg sync.WaitGroup
		wg.Go(func() { s.Do(t.Context(), API, time.Time{}, "slow") })
		synctest.Wait()
		start := time.Now()
		wg.Go(func() {
			r := refusal(t, s.Do(t.Context(), API, in(500*ms), "waits"))
			if took := time.Since(start); r.Reason != ReasonExpired || took != 500*ms {
				t.Errorf("%v after %v, must be told at its deadline", r, took)
			}
		})
		synctest.Wait()
		wg.Go(func() { // when the worker is free, 50 ms are left, and a run takes longer
			if r := refusal(t, s.Do(t.Context(), API, in(1050*ms), "hopeless")); r.Reason != ReasonExpired {
				t.Errorf("%v", r)
			}
		})
		wg.Wait()
		if got := x.order(); !slices.Equal(got, []string{"slow"}) {
			t.Errorf("ran %v in vain", got)
		}
		if st := s.Stats().Class[API]; st.Refused[ReasonExpired] != 2 {
			t.Errorf("counted %+v", st)
		}
		shut(t, s)
	})
}

func TestAnIdleEngineMendsAGloomyCurve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, each(10*ms), Options{Places: places, Curve: warm(10 * time.Second)})
		refused := 0
		for range 2000 {
			if s.Do(t.Context(), API, in(500*ms), "x") != nil {
				refused++
			}
		}
		if mean, _ := s.curve.Predict(1); !near(mean, 10*ms, 0.2) || refused > 1800 {
			t.Errorf("after 2000 requests the curve says %v, %d were refused", mean, refused)
		}
		shut(t, s)
	})
}

func TestPreparedJobsKeepTheirPlaceAndHoldNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := each(100 * ms)
		s := open(t, x, Options{Places: places})
		var wg sync.WaitGroup
		a, err := s.Reserve(API, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		run := func(p Place[string], name string) {
			wg.Go(func() {
				if err := p.Run(t.Context(), name); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
			synctest.Wait()
		}
		b, _ := s.Reserve(API, time.Time{})
		c, _ := s.Reserve(API, time.Time{})
		run(b, "b") // runs at once: a is not ready
		run(c, "c")
		run(a, "a") // ready before b ends, and ahead of c
		if a.Run(t.Context(), "twice") == nil {
			t.Error("a place ran twice")
		}
		wg.Wait()
		if got := x.order(); !slices.Equal(got, []string{"b", "a", "c"}) {
			t.Errorf("ran %v", got)
		}
		a.Cancel() // nothing, although the ticket may be somebody else's by now
		shut(t, s)
	})
}

func TestAPlaceThatIsNotReadyInTimeIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, each(time.Second), Options{Places: [Classes]int{0, 1, 0}})
		p, err := s.Reserve(API, in(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if r := refusal(t, p.Expire()); r.Reason != ReasonExpired || r.RetryAfter() <= 0 {
			t.Errorf("%v", r)
		}
		p.Cancel()
		if err := s.Do(t.Context(), API, time.Time{}, "next"); err != nil {
			t.Errorf("the place was not freed: %v", err)
		}
		if st := s.Stats().Class[API]; st.Refused[ReasonExpired] != 1 || st.Done != 1 {
			t.Errorf("counted %+v", st)
		}
		shut(t, s)
	})
}

func TestCloseRefusesWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, each(time.Second), Options{Places: places})
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.Do(t.Context(), API, time.Time{}, "runs"); err != nil {
				t.Errorf("what ran was not finished: %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if r := refusal(t, s.Do(t.Context(), API, time.Time{}, "waits")); r.Reason != ReasonClosing {
				t.Errorf("%v", r)
			}
		})
		held, err := s.Reserve(Bulk, time.Time{})
		given, err2 := s.Reserve(Bulk, time.Time{})
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		synctest.Wait()
		start := time.Now()
		if err := s.Close(); err != nil || time.Since(start) != time.Second {
			t.Errorf("closed with %v after %v", err, time.Since(start))
		}
		wg.Wait()
		if r := refusal(t, held.Run(t.Context(), "x")); r.Reason != ReasonClosing {
			t.Errorf("a place of before: %v", r)
		}
		given.Cancel()
		if _, err := s.Reserve(API, time.Time{}); refusal(t, err).Reason != ReasonClosing {
			t.Errorf("a closed scheduler says %v", err)
		}
		shut(t, s)
	})
}

func TestTheExecutorsErrorIsTheJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("no such node")
		s := open(t, &shop{took: func(int) time.Duration { return ms }, fail: broken}, Options{Places: places})
		if err := s.Do(t.Context(), Bulk, time.Time{}, "x"); !errors.Is(err, broken) {
			t.Errorf("%v", err)
		}
		if st := s.Stats(); st.Class[Bulk].Failed != 1 || len(st.Curve) != 0 {
			t.Errorf("a run that failed was learned: %+v", st)
		}
		shut(t, s)
	})
}

// batches runs jobs that arrive at the given times with the given budgets and returns the batches with their starts.
func batches(t *testing.T, o Options, took func(int) time.Duration, at []time.Duration, budget time.Duration) (sizes []int) {
	t.Helper()
	x := &shop{took: took}
	o.Places = places
	s := open(t, x, o)
	var wg sync.WaitGroup
	start := time.Now()
	for i, d := range at {
		time.Sleep(time.Until(start.Add(d)))
		deadline := time.Time{}
		if budget > 0 {
			deadline = in(budget)
		}
		wg.Go(func() {
			if err := s.Do(t.Context(), API, deadline, fmt.Sprint(i)); err != nil {
				t.Errorf("%d: %v", i, err)
			} else if budget > 0 && time.Now().After(deadline) {
				t.Errorf("%d was late", i)
			}
		})
		synctest.Wait()
	}
	wg.Wait()
	for _, b := range x.did {
		sizes = append(sizes, len(b))
	}
	shut(t, s)
	return sizes
}

func TestBatchesClose(t *testing.T) {
	flat := func(int) time.Duration { return 20 * ms }                          // a GPU: eight cost what one does
	steep := func(n int) time.Duration { return time.Duration(n) * 20 * ms }    // a CPU: merging wins nothing
	half := func(n int) time.Duration { return 10*ms + time.Duration(n)*10*ms } // something between
	curve := func(f func(int) time.Duration) Curve { return warm(f(1), f(2), f(3), f(4)) }
	sizes := []int{1, 2, 3, 4}
	times := func(n int, gap time.Duration) (at []time.Duration) {
		for i := range n {
			at = append(at, time.Duration(i)*gap)
		}
		return at
	}
	for _, w := range []struct {
		name   string
		took   func(int) time.Duration
		o      Options
		at     []time.Duration
		budget time.Duration
		want   []int
	}{
		{"best size reached", flat, Options{}, times(8, ms), 300 * ms, []int{4, 4}},
		{"slack of the oldest spent", flat, Options{}, times(3, 10*ms), 100 * ms, []int{3}},
		{"nobody waits where merging wins nothing", steep, Options{}, times(3, ms), 300 * ms, []int{1, 1, 1}},
		{"no deadline, no delay: nobody waits", flat, Options{}, times(3, 30*ms), 0, []int{1, 1, 1}},
		{"the longest delay", flat, Options{MaxDelay: 5 * ms}, []time.Duration{0, 2 * ms, 50 * ms}, 300 * ms, []int{2, 1}},
		{"a size that keeps the deadline", half, Options{}, times(4, 0), 35 * ms, []int{2, 2}},
	} {
		t.Run(w.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w.o.Sizes, w.o.Curve = sizes, curve(w.took)
				if w.name == "a size that keeps the deadline" {
					w.o.Workers = 2 // else the second pair would be refused
				}
				if got := batches(t, w.o, w.took, w.at, w.budget); !slices.Equal(got, w.want) {
					t.Errorf("batches of %v, want %v", got, w.want)
				}
			})
		})
	}
}

func TestABatchDoesNotWaitForMoreThanCanCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flat := func(int) time.Duration { return 20 * ms }
		s := open(t, &shop{took: flat}, Options{Places: places, Sizes: []int{1, 2, 4}, Curve: warm(20*ms, 20*ms, 20*ms, 20*ms)})
		s.SetSources(1)
		start := time.Now()
		if err := s.Do(t.Context(), API, in(time.Second), "alone"); err != nil || time.Since(start) != 20*ms {
			t.Errorf("%v after %v: nobody else could come", err, time.Since(start))
		}
		shut(t, s)
	})
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"no size 1":       {Sizes: []int{2, 4}},
		"falling":         {Sizes: []int{1, 4, 2}},
		"too large":       {Sizes: []int{1, MaxSize + 1}},
		"workers":         {Workers: -1},
		"places":          {Places: [Classes]int{-1, 0, 0}},
		"head starts":     {HeadStart: [Classes]time.Duration{2, 1, 3}},
		"too many places": {Places: [Classes]int{0, MaxPlaces + 1, 0}},
	} {
		if _, err := New(each(ms), o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	for _, reason := range reasons {
		r := refuse(reason, API, 20*ms)
		var again interface{ RetryAfter() time.Duration }
		if err := fmt.Errorf("busy: %w", error(r)); !errors.As(err, &again) || again.RetryAfter() != 20*ms || r.Error() == "" {
			t.Errorf("%s: %v", reason, r)
		}
	}
	if refuse(ReasonFull, API, -1).RetryAfter() <= 0 {
		t.Error("a refusal that asks to try again at once makes its caller spin")
	}
}

func TestContextsCarryTheClass(t *testing.T) {
	if c := ClassOf(t.Context()); c != API {
		t.Errorf("nobody said: %v", c)
	}
	for _, c := range []Class{Sensor, API, Bulk} {
		if got := ClassOf(WithClass(t.Context(), c)); got != c {
			t.Errorf("%v came back as %v", c, got)
		}
	}
}

// nothing is an executor without work.
type nothing struct{}

func (nothing) Run(int, []*int) error { return nil }

func TestAJobAllocatesNothing(t *testing.T) {
	s, err := New[*int](nothing{}, Options{Places: places, Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	job := new(int)
	do := func() {
		if err := s.Do(t.Context(), Sensor, time.Now().Add(time.Second), job); err != nil {
			t.Fatal(err)
		}
	}
	do()
	if n := testing.AllocsPerRun(200, do); n > 0 {
		t.Errorf("%.1f allocations a job", n)
	}
	shut(t, s)
}

func BenchmarkDo(b *testing.B) {
	s, err := New[*int](nothing{}, Options{Places: places, Workers: 2})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	job := new(int)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Do(b.Context(), API, time.Now().Add(time.Second), job); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRefuse is what a request costs that is refused behind a full queue.
func BenchmarkRefuse(b *testing.B) {
	gate := make(chan struct{})
	s, err := New(gated(gate), Options{Places: places, Workers: 2, Curve: warm(20 * ms)})
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() { s.Do(b.Context(), API, time.Time{}, 0) })
	}
	for s.Stats().Class[API].Admitted < 40 {
		time.Sleep(ms)
	}
	deadline := time.Now().Add(20 * ms)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Reserve(API, deadline); err == nil {
			b.Fatal("taken")
		}
	}
	close(gate)
	wg.Wait()
	s.Close()
}

type gated chan struct{}

func (g gated) Run(int, []int) error { <-g; return nil }
