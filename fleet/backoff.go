package fleet

import "time"

// maxDoublings keeps base<<n far from overflow for every base New accepts (up to an hour).
const maxDoublings = 20

// backoff is exponential backoff with full jitter: the n-th wait is uniform in [0, min(limit, base*2^n)). Full jitter
// spreads a fleet that lost its broker at one moment best (M. Brooker, "Exponential Backoff And Jitter", AWS 2015).
type backoff struct {
	base, limit time.Duration
	rand        func() float64 // uniform in [0, 1)
	failures    int
}

// next returns the wait before the next attempt and counts one more failure.
func (b *backoff) next() time.Duration {
	ceiling := b.limit
	if grown := b.base << min(b.failures, maxDoublings); grown < b.limit {
		ceiling = grown
	}
	b.failures++
	return time.Duration(b.rand() * float64(ceiling))
}

// settle forgets earlier failures when a connection held for at least the limit; a broker that accepts and drops at once
// is therefore still met with growing waits.
func (b *backoff) settle(held time.Duration) {
	if held >= b.limit {
		b.failures = 0
	}
}
