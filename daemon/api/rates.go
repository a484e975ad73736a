package api

import (
	"container/list"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxClients bounds the clients whose rate is remembered. When there are more, the one that was silent for the longest is
// forgotten; it may then burst again.
const maxClients = 1024

// rates bounds how often each client asks.
type rates struct {
	perSecond rate.Limit
	burst     int
	now       func() time.Time

	mu      sync.Mutex
	clients map[string]*list.Element
	recent  *list.List // of *bucket, the latest first
}

type bucket struct {
	key string
	*rate.Limiter
}

// newRates allows each client so many requests per second, 0 is without limit, and so many at once.
func newRates(perSecond float64, burst int, now func() time.Time) *rates {
	return &rates{perSecond: rate.Limit(perSecond), burst: burst, now: now, clients: map[string]*list.Element{}, recent: list.New()}
}

// allow takes one request off a client's account. Errors: *rateError.
func (l *rates) allow(c *client) error {
	if l.perSecond == 0 || c == inProcess {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.clients[c.key]
	if ok {
		l.recent.MoveToFront(at)
	} else {
		if l.recent.Len() >= maxClients {
			oldest := l.recent.Back()
			delete(l.clients, l.recent.Remove(oldest).(*bucket).key)
		}
		at = l.recent.PushFront(&bucket{c.key, rate.NewLimiter(l.perSecond, l.burst)})
		l.clients[c.key] = at
	}
	now := l.now()
	r := at.Value.(*bucket).ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait == 0 {
		return nil
	}
	r.CancelAt(now)
	return &rateError{wait, float64(l.perSecond)}
}

// rateError says when the next request is welcome.
type rateError struct {
	wait      time.Duration
	perSecond float64
}

func (e *rateError) Error() string {
	return fmt.Sprintf("%v: %v a second: wait for %v", errRate, e.perSecond, e.wait.Round(time.Millisecond))
}

func (e *rateError) Unwrap() error { return errRate }
