// Command sched measures what an overloaded device is worth: how many requests a second it answers within their deadline,
// as a part of what it can do at all, with our scheduler and with the queue policy of inference servers, in one run and on
// the same work. `make bench-overload` runs it.
//
// Requests arrive as a Poisson process and do not wait for answers (open loop). The work is a face identified for real (detect,
// align, embed, search of 10,000 templates) in pictures of LFW, decoded before; without the data folder it is arithmetic
// of about the same time. The capacity is measured first in every repetition, in a closed loop, and the policies then take
// turns in another order each time, with the same arrivals.
//
// The peers are queues as Triton's dynamic batcher has them: first in first out, bounded by max_queue_size, and
// default_queue_policy with timeout_action REJECT: a request that has waited longer than the timeout is refused when its
// turn comes. Nothing estimates whether it can still be served in time. "timeout = deadline" is how it is written first;
// "tuned" is somebody's who measured: a timeout of half the deadline and a queue as long as half the deadline.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

type options struct {
	runs, workers int
	seconds, warm float64
	calibrate     float64
	deadline      time.Duration
	data, work    string
	json, check   bool
}

func main() {
	var o options
	flag.IntVar(&o.runs, "runs", 5, "repetitions")
	flag.IntVar(&o.workers, "workers", runtime.NumCPU(), "pipelines, one thread each")
	flag.Float64Var(&o.seconds, "seconds", 6, "measured time of each policy at each load")
	flag.Float64Var(&o.warm, "warm", 2, "seconds of the same load before")
	flag.Float64Var(&o.calibrate, "calibrate", 2, "seconds in which the capacity is measured, between any two turns")
	flag.DurationVar(&o.deadline, "deadline", 300*time.Millisecond, "of every request")
	flag.StringVar(&o.data, "data", os.Getenv("VIGIL_DATA"), "folder of models and pictures")
	flag.StringVar(&o.work, "work", "", "faces, arithmetic or sleep (15 to 25 ms: shows the policies whatever else the machine does); empty is faces where there is data")
	flag.BoolVar(&o.json, "json", false, "print the result as JSON")
	flag.BoolVar(&o.check, "check", false, "exit with 1 unless goodput at 200 % is 90 % of the capacity and the 99th percentile inside the deadline")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "sched:", err)
		os.Exit(1)
	}
}

// loads are the rates of arrival as parts of the capacity.
var loads = []float64{0.5, 1, 2}

// Row is one policy at one load: medians over the repetitions, with the lowest and the highest.
type Row struct {
	Policy  string  `json:"policy"`
	Load    float64 `json:"load"`    // of the capacity
	Goodput Spread  `json:"goodput"` // answered within the deadline, as a part of the capacity
	P50     Spread  `json:"p50_ms"`  // of those that were answered, from arrival to answer
	P99     Spread  `json:"p99_ms"`
	Late    Spread  `json:"late"`      // answered after the deadline, as a part of what arrived
	AtOnce  Spread  `json:"refused"`   // at arrival
	Waited  Spread  `json:"dropped"`   // after they waited
	NoP99   Spread  `json:"no_p99_ms"` // from arrival to the refusal
}

// Spread is a median with the extremes.
type Spread struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

// Result is the whole run.
type Result struct {
	Work       string  `json:"work"`
	Workers    int     `json:"workers"`
	DeadlineMS float64 `json:"deadline_ms"`
	Seconds    float64 `json:"seconds"`
	Runs       int     `json:"runs"`
	Capacity   Spread  `json:"capacity_per_second"`
	Rows       []Row   `json:"rows"`
}

func run(ctx context.Context, o options) (err error) {
	w, err := newWork(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	fmt.Fprintf(os.Stderr, "%s; %d workers, deadline %v, %d repetitions of %g s (and %g s before) for each policy and load\n",
		w.name, o.workers, o.deadline, o.runs, o.seconds, o.warm)
	all := map[key][]trial{}
	var capacities []float64
	for r := range o.runs {
		fmt.Fprintf(os.Stderr, "repetition %d of %d\n", r+1, o.runs)
		found, err := repetition(ctx, w, o, r, all)
		if err != nil {
			return err
		}
		capacities = append(capacities, found...)
	}
	res := Result{Work: w.name, Workers: o.workers, DeadlineMS: o.deadline.Seconds() * 1e3, Seconds: o.seconds, Runs: o.runs, Capacity: spread(capacities)}
	for _, load := range loads {
		for _, p := range policies {
			res.Rows = append(res.Rows, sum(p.name, load, all[key{p.name, load}]))
		}
	}
	if o.json {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		err = e.Encode(res)
	} else {
		print(&res)
	}
	if err == nil && o.check {
		err = check(&res)
	}
	return err
}

type key struct {
	policy string
	load   float64
}

// turn is one policy at one load.
type turn struct {
	p    policy
	load float64
}

// turns are all of them in an order of the repetition's own.
func turns(repetition int) (order []turn) {
	for _, load := range loads {
		for _, p := range policies {
			order = append(order, turn{p, load})
		}
	}
	r := rand.New(rand.NewPCG(uint64(repetition), 1))
	r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}

// repetition gives every policy its turn at every load and returns the capacities that it measured.
func repetition(ctx context.Context, w *work, o options, r int, all map[key][]trial) (capacities []float64, err error) {
	before, err := measureCapacity(ctx, w, o)
	if err != nil {
		return nil, err
	}
	for _, x := range turns(r) {
		t, err := offer(ctx, w, o, x.p, before, x.load, uint64(r)<<8|uint64(x.load*10))
		if err != nil {
			return nil, err
		}
		after, err := measureCapacity(ctx, w, o)
		if err != nil {
			return nil, err
		}
		t.capacity = (before + after) / 2
		capacities = append(capacities, t.capacity)
		before = after
		fmt.Fprintf(os.Stderr, "  %-20s %3.0f %%: goodput %5.1f %% of %.1f a second, 99th percentile %6.1f ms\n", x.p.name, x.load*100,
			100*t.goodput(), t.capacity, quantile(t.answered, 0.99))
		k := key{x.p.name, x.load}
		all[k] = append(all[k], t)
	}
	return capacities, nil
}

func sum(name string, load float64, trials []trial) Row {
	of := func(f func(t *trial) float64) Spread {
		var v []float64
		for i := range trials {
			v = append(v, f(&trials[i]))
		}
		return spread(v)
	}
	return Row{
		Policy: name, Load: load,
		Goodput: of((*trial).goodput),
		P50:     of(func(t *trial) float64 { return quantile(t.answered, 0.5) }),
		P99:     of(func(t *trial) float64 { return quantile(t.answered, 0.99) }),
		Late:    of(func(t *trial) float64 { return t.part(t.late) }),
		AtOnce:  of(func(t *trial) float64 { return t.part(t.refused) }),
		Waited:  of(func(t *trial) float64 { return t.part(t.dropped) }),
		NoP99:   of(func(t *trial) float64 { return quantile(t.noes, 0.99) }),
	}
}

func spread(v []float64) Spread {
	v = slices.Clone(v)
	slices.Sort(v)
	return Spread{Median: (v[(len(v)-1)/2] + v[len(v)/2]) / 2, Low: v[0], High: v[len(v)-1]}
}

// quantile of unsorted values by the nearest rank; 0 of none.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Clone(v)
	slices.Sort(v)
	return v[min(int(q*float64(len(v))), len(v)-1)]
}

func print(r *Result) {
	fmt.Printf("%s, %d workers, deadline %.0f ms: capacity %.1f a second (%.1f to %.1f); medians of %d repetitions (lowest..highest)\n",
		r.Work, r.Workers, r.DeadlineMS, r.Capacity.Median, r.Capacity.Low, r.Capacity.High, r.Runs)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LOAD\tPOLICY\tGOODPUT % OF CAPACITY\tP50 ms\tP99 ms\tLATE %\tREFUSED AT ONCE %\tDROPPED AFTER WAITING %\tREFUSAL P99 ms")
	percent := func(s Spread) string { return fmt.Sprintf("%.1f (%.1f..%.1f)", 100*s.Median, 100*s.Low, 100*s.High) }
	for _, x := range r.Rows {
		fmt.Fprintf(w, "%.0f %%\t%s\t%s\t%.0f\t%.0f (%.0f..%.0f)\t%.1f\t%.1f\t%.1f\t%.1f\n", 100*x.Load, x.Policy, percent(x.Goodput), x.P50.Median,
			x.P99.Median, x.P99.Low, x.P99.High, 100*x.Late.Median, 100*x.AtOnce.Median, 100*x.Waited.Median, x.NoP99.Median)
	}
	w.Flush()
}

// check says whether ours is worth what it promises at twice the capacity.
func check(r *Result) error {
	for _, x := range r.Rows {
		if x.Load != 2 || !strings.HasPrefix(x.Policy, "vigil") {
			continue
		}
		if x.Goodput.Median < 0.9 || x.P99.Median > r.DeadlineMS {
			return fmt.Errorf("at 200 %%: goodput %.1f %% of the capacity (90 are promised), 99th percentile %.0f ms (the deadline is %.0f)",
				100*x.Goodput.Median, x.P99.Median, r.DeadlineMS)
		}
	}
	return nil
}
