package main

import (
	"testing"
	"time"
)

// The least numbers of queries are those of the rules: 64 for SingleStream's 90th percentile would allow 1 over, 459 queries
// are the fewest from which a 99th percentile can be claimed at 99 % confidence (0.99^459 < 0.01).
func TestEarlyStopping(t *testing.T) {
	for _, c := range []struct {
		n    int
		p    float64
		over int
		ok   bool
	}{
		{43, 0.90, 0, false}, {44, 0.90, 0, true}, {64, 0.90, 1, true}, {458, 0.99, 0, false}, {459, 0.99, 0, true}, {662, 0.99, 1, true}, {661, 0.99, 0, true},
	} {
		if over, ok := overAllowed(c.n, c.p); ok != c.ok || ok && over != c.over {
			t.Errorf("%d queries, %v: %d %v, want %d %v", c.n, c.p, over, ok, c.over, c.ok)
		}
	}
}

func TestFiguresOfARun(t *testing.T) {
	m := &measured{seconds: 2, dropped: 1}
	for i := range 100 {
		m.all = append(m.all, outcome{status: 200, took: time.Duration(i+1) * time.Millisecond})
	}
	m.all = append(m.all, outcome{status: 503, refused: true}, outcome{})
	if m.throughput() != 50 || m.within(10*time.Millisecond, time.Second) != 10 || m.refused() != 1 || m.failed() != 2 {
		t.Errorf("%v %v %v %v", m.throughput(), m.within(10*time.Millisecond, time.Second), m.refused(), m.failed())
	}
	if m.percentile(0.99) != 100*time.Millisecond || m.percentile(0.5) != 51*time.Millisecond {
		t.Errorf("%v %v", m.percentile(0.99), m.percentile(0.5))
	}
}
