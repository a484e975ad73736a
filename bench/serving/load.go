package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// target is a server under load.
type target struct {
	name     string
	client   *http.Client
	url      string
	form     func(picture []byte) (body []byte, contentType string) // what a request sends
	deadline time.Duration                                          // told to the server, if it takes one
}

// overUNIX makes a client whose connections go to a socket, as many as are asked for.
func overUNIX(path string) *http.Client {
	t := &http.Transport{MaxIdleConns: 1024, MaxIdleConnsPerHost: 1024, DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}}
	return &http.Client{Transport: t, Timeout: time.Minute}
}

// outcome of a request.
type outcome struct {
	status  int           // 0: no answer
	took    time.Duration // from the moment at which it was due
	refused bool          // 503 or 429
}

// ask sends one picture. due is when it should have been sent: the time that a late sender lost counts.
func (t *target) ask(ctx context.Context, picture []byte, due time.Time) outcome {
	body, contentType := t.form(picture)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, bytes.NewReader(body))
	if err != nil {
		return outcome{took: time.Since(due)}
	}
	req.Header.Set("Content-Type", contentType)
	if t.deadline > 0 {
		req.Header.Set("Vigil-Deadline-Ms", fmt.Sprint(t.deadline.Milliseconds()))
	}
	res, err := t.client.Do(req)
	if err != nil {
		return outcome{took: time.Since(due)}
	}
	_, err = io.Copy(io.Discard, res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return outcome{took: time.Since(due)}
	}
	return outcome{status: res.StatusCode, took: time.Since(due),
		refused: res.StatusCode == http.StatusServiceUnavailable || res.StatusCode == http.StatusTooManyRequests}
}

// measured is what a run of load gave.
type measured struct {
	offered float64 // requests per second
	seconds float64 // from the first arrival to the last answer
	all     []outcome
	used    usage
	dropped int // arrivals that were not sent, because too many were under way
}

// mostUnderWay bounds the requests that wait for an answer: beyond it an arrival counts as failed.
const mostUnderWay = 4096

// open offers requests at a rate, with exponential gaps, whether answers come or not.
func (t *target) open(ctx context.Context, pictures [][]byte, rate float64, d time.Duration, seed uint64) *measured {
	r := rand.New(rand.NewPCG(seed, 1))
	m := &measured{offered: rate}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, mostUnderWay)
	start := time.Now()
	due := start
	for i := 0; ctx.Err() == nil; i++ {
		due = due.Add(time.Duration(r.ExpFloat64() / rate * float64(time.Second)))
		if due.Sub(start) > d {
			break
		}
		time.Sleep(time.Until(due))
		select {
		case slots <- struct{}{}:
		default:
			m.dropped++
			continue
		}
		picture, at := pictures[i%len(pictures)], due
		wg.Go(func() {
			o := t.ask(ctx, picture, at)
			<-slots
			mu.Lock()
			defer mu.Unlock()
			m.all = append(m.all, o)
		})
	}
	wg.Wait()
	m.seconds = time.Since(start).Seconds()
	return m
}

// closed keeps a number of requests under way, for a time.
func (t *target) closed(ctx context.Context, pictures [][]byte, clients int, d time.Duration) *measured {
	m := &measured{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	start := time.Now()
	next := 0
	for range clients {
		wg.Go(func() {
			for ctx.Err() == nil && time.Since(start) < d {
				mu.Lock()
				picture := pictures[next%len(pictures)]
				next++
				mu.Unlock()
				o := t.ask(ctx, picture, time.Now())
				mu.Lock()
				m.all = append(m.all, o)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	m.seconds = time.Since(start).Seconds()
	return m
}

// served are the answers of status 200.
func (m *measured) served() (list []time.Duration) {
	for _, o := range m.all {
		if o.status == http.StatusOK {
			list = append(list, o.took)
		}
	}
	slices.Sort(list)
	return list
}

// throughput is the answers per second.
func (m *measured) throughput() float64 { return float64(len(m.served())) / m.seconds }

// within is the answers per second that came before the deadline, counted over the time in which requests arrived.
func (m *measured) within(deadline time.Duration, d time.Duration) float64 {
	n, _ := slices.BinarySearch(m.served(), deadline+1)
	return float64(n) / d.Seconds()
}

func (m *measured) refused() (n int) {
	for _, o := range m.all {
		if o.refused {
			n++
		}
	}
	return n
}

// failed are arrivals that got neither an answer nor a refusal.
func (m *measured) failed() int { return m.dropped + len(m.all) - len(m.served()) - m.refused() }

// percentile of the answers' latencies; 0 if there are none.
func (m *measured) percentile(p float64) time.Duration { return percentile(m.served(), p) }

func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}
