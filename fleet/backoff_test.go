package fleet

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestBackoffCeilings(t *testing.T) {
	almost := math.Nextafter(1, 0)
	b := backoff{base: time.Second, limit: time.Minute, rand: func() float64 { return almost }}
	for n, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
		if got := b.next(); got > want*time.Second || got < want*time.Second-time.Microsecond {
			t.Errorf("wait %d is %v at most, want %ds", n, got, want)
		}
	}
	for range 100 { // no overflow
		if got := b.next(); got <= 0 || got > time.Minute {
			t.Fatalf("wait is %v", got)
		}
	}
	b.rand = func() float64 { return 0 }
	if got := b.next(); got != 0 {
		t.Errorf("full jitter starts at %v, want 0", got)
	}

	b.rand = func() float64 { return almost }
	b.settle(59 * time.Second)
	if got := b.next(); got < 59*time.Second {
		t.Errorf("a short connection reset the backoff to %v", got)
	}
	b.settle(time.Minute)
	if got := b.next(); got > time.Second {
		t.Errorf("after a long connection the wait is %v", got)
	}
}

// The waits of many devices that lost their broker together are uniform: each tenth of the range gets its share.
func TestBackoffSpread(t *testing.T) {
	const devices, bins = 20000, 10
	r := rand.New(rand.NewPCG(1, 2))
	var counts [bins]int
	for range devices {
		b := backoff{base: time.Second, limit: time.Minute, rand: r.Float64, failures: 3}
		counts[int(b.next()*bins/(8*time.Second))]++
	}
	for i, n := range counts {
		if want := devices / bins; n < want*9/10 || n > want*11/10 {
			t.Errorf("tenth %d has %d devices, want about %d", i, n, want)
		}
	}
}
