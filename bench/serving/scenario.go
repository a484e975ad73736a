package main

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"
)

// scenario is one of MLPerf Inference's (rules of v4.1, "Scenarios" and "Early Stopping"), run for a short time on a whole
// identification over the socket. It is no submission: their model, data and length are others.
type scenario struct {
	Server   string  `json:"server"`
	Scenario string  `json:"scenario"`
	Figure   string  `json:"figure"`
	Value    float64 `json:"value"`
	Queries  int     `json:"queries"`
	Stopping string  `json:"early_stopping"`
}

// The rules' figures.
const (
	singlePercentile = 0.90 // SingleStream: the 90th percentile of latencies
	multiPercentile  = 0.99 // MultiStream: the 99th of queries of eight samples
	multiSamples     = 8
	serverPercentile = 0.99 // Server: arrivals at random, 99 % within the bound
	confidence       = 0.99 // of early stopping
)

func (r *report) scenarios(ctx context.Context, servers []*server, w *work, o *options) error {
	for _, s := range servers {
		s.deadline = 0
		for _, run := range []func(context.Context, *server, *work, *options) scenario{singleStream, multiStream, serverScenario, offline} {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			sc := run(ctx, s, w, o)
			sc.Server = s.name
			r.Scenarios = append(r.Scenarios, sc)
			progress(s.name + " " + sc.Scenario)
		}
	}
	return nil
}

func singleStream(ctx context.Context, s *server, w *work, o *options) scenario {
	served := s.closed(ctx, w.pictures, 1, o.scenarios).served()
	return stopped(scenario{Scenario: "SingleStream", Figure: "90th percentile, ms"}, served, singlePercentile)
}

// multiStream sends eight pictures at once, and the next eight when all are answered.
func multiStream(ctx context.Context, s *server, w *work, o *options) scenario {
	var took []time.Duration
	start := time.Now()
	for i := 0; ctx.Err() == nil && time.Since(start) < o.scenarios; i += multiSamples {
		var wg sync.WaitGroup
		begin, good := time.Now(), make([]bool, multiSamples)
		for k := range multiSamples {
			wg.Go(func() { good[k] = s.ask(ctx, w.pictures[(i+k)%len(w.pictures)], begin).status == http.StatusOK })
		}
		wg.Wait()
		if !slices.Contains(good, false) {
			took = append(took, time.Since(begin))
		}
	}
	slices.Sort(took)
	return stopped(scenario{Scenario: "MultiStream", Figure: "99th percentile of 8 samples, ms"}, took, multiPercentile)
}

// stopped gives the percentile that early stopping allows to claim from so many queries: the rank is moved up until the
// true percentile lies below it with the confidence.
func stopped(s scenario, sorted []time.Duration, p float64) scenario {
	s.Queries = len(sorted)
	over, ok := overAllowed(len(sorted), p)
	if !ok {
		s.Value, s.Stopping = ms(percentile(sorted, p)), "too few queries to claim it"
		return s
	}
	s.Value = ms(sorted[len(sorted)-1-over])
	s.Stopping = fmt.Sprintf("%d of %d may be over", over, len(sorted))
	return s
}

// overAllowed is how many of n queries may take longer than a bound that the percentile p is claimed to keep: the most t for
// which so few over it would be seen with a probability of at most 1-confidence if the claim were only just false.
func overAllowed(n int, p float64) (t int, ok bool) {
	sum := 0.0 // of the binomial distribution of those over, with the share 1-p
	for k := 0; k <= n; k++ {
		lg := func(x int) float64 { v, _ := math.Lgamma(float64(x + 1)); return v }
		sum += math.Exp(lg(n) - lg(k) - lg(n-k) + float64(k)*math.Log(1-p) + float64(n-k)*math.Log(p))
		if sum > 1-confidence {
			return k - 1, k > 0
		}
	}
	return n, true
}

// serverScenario looks for the highest rate of random arrivals at which the percentile of latencies keeps the bound.
func serverScenario(ctx context.Context, s *server, w *work, o *options) scenario {
	sc := scenario{Scenario: "Server", Figure: fmt.Sprintf("queries/s with 99 %% within %d ms", o.deadline.Milliseconds())}
	high := s.closed(ctx, w.pictures, 4, o.scenarios/5).throughput()
	low := 0.0
	for step := range 6 {
		rate := (low + high) / 2
		if step == 0 {
			rate = 0.9 * high
		}
		m := s.open(ctx, w.pictures, rate, o.scenarios/3, uint64(step))
		late := 0
		for _, a := range m.all {
			if a.status != http.StatusOK || a.took > o.deadline {
				late++
			}
		}
		allowed, ok := overAllowed(len(m.all), serverPercentile)
		if !ok {
			allowed = int(float64(len(m.all)) * (1 - serverPercentile))
		}
		if m.dropped == 0 && late <= allowed {
			low, sc.Queries = rate, len(m.all)
			sc.Stopping = fmt.Sprintf("%d of %d may be over, %d were", allowed, len(m.all), late)
			if !ok {
				sc.Stopping = "too few queries to claim it"
			}
		} else {
			high = rate
		}
	}
	sc.Value = low
	return sc
}

// offline has all work there at once.
func offline(ctx context.Context, s *server, w *work, o *options) scenario {
	m := s.closed(ctx, w.pictures, 16, o.scenarios)
	return scenario{Scenario: "Offline", Figure: "samples/s", Value: m.throughput(), Queries: len(m.all), Stopping: "-"}
}
