package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// report is everything that was measured. Rates are requests per second.
type report struct {
	Precision       string     `json:"precision"`
	Gates           []string   `json:"gates,omitempty"` // of what vigild runs in 8 bits
	People          int        `json:"people"`
	Cores           int        `json:"cores"`
	Rounds          int        `json:"rounds"`
	DurationSeconds float64    `json:"duration_seconds"`
	DeadlineMS      int64      `json:"deadline_ms"`
	Capacity        []figures  `json:"capacity"` // closed loop, four requests under way
	Loads           []figures  `json:"loads"`    // open loop, the same arrivals for all
	Scenarios       []scenario `json:"scenarios,omitempty"`
}

// figures of one server under one load: medians over the rounds, with the least and the largest of the throughput.
type figures struct {
	Server     string  `json:"server"`
	Load       string  `json:"load"`
	Offered    float64 `json:"offered"`
	Throughput float64 `json:"throughput"`
	Low        float64 `json:"throughput_low"`
	High       float64 `json:"throughput_high"`
	Goodput    float64 `json:"goodput"` // answered within the deadline
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	Refused    float64 `json:"refused"` // share of the arrivals
	Failed     int     `json:"failed"`
	MemoryMiB  float64 `json:"memory_mib"`
	CPUms      float64 `json:"cpu_ms"` // processor time of the server for each answer
}

// fractions of vigild's capacity that are offered to every server.
var fractions = []float64{0.5, 1, 2}

// loads measures the capacity of every server, then every server under the same loads.
func (r *report) loads(ctx context.Context, servers []*server, w *work, o *options) error {
	capacity := map[*server][]*measured{}
	for range o.rounds {
		for _, s := range servers {
			s.closed(ctx, w.pictures, 4, o.duration/8) // warm
			stop := s.process.watch()
			m := s.closed(ctx, w.pictures, 4, o.duration/2)
			m.used = stop()
			capacity[s] = append(capacity[s], m)
		}
		progress("capacity")
	}
	for _, s := range servers {
		r.Capacity = append(r.Capacity, sum(s.name, "4 at a time", capacity[s], o, o.duration/2))
	}
	base := r.Capacity[0].Throughput // of the first: ours
	if base == 0 {
		return fmt.Errorf("%s answers nothing", servers[0].name)
	}
	if o.capacity {
		return nil
	}
	for _, f := range fractions {
		runs := map[*server][]*measured{}
		for round := range o.rounds {
			for _, s := range servers {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				s.deadline = 0
				if s.name == "vigild" {
					s.deadline = o.deadline
				}
				stop := s.process.watch()
				m := s.open(ctx, w.pictures, f*base, o.duration, uint64(round))
				m.used = stop()
				runs[s] = append(runs[s], m)
			}
			progress(fmt.Sprintf("load of %.0f %%", 100*f))
		}
		for _, s := range servers {
			r.Loads = append(r.Loads, sum(s.name, fmt.Sprintf("%.0f %%", 100*f), runs[s], o, o.duration))
		}
	}
	return nil
}

func progress(what string) {
	fmt.Fprintf(os.Stderr, "%s %s: done\n", time.Now().Format(time.TimeOnly), what)
}

func sum(server, load string, runs []*measured, o *options, d time.Duration) figures {
	f := figures{Server: server, Load: load, Offered: runs[0].offered}
	of := func(get func(m *measured) float64) float64 { return middle(runs, get) }
	f.Throughput = of((*measured).throughput)
	f.Goodput = of(func(m *measured) float64 { return m.within(o.deadline, d) })
	f.P50 = of(func(m *measured) float64 { return ms(m.percentile(0.5)) })
	f.P99 = of(func(m *measured) float64 { return ms(m.percentile(0.99)) })
	f.Refused = of(func(m *measured) float64 { return float64(m.refused()) / float64(max(1, len(m.all)+m.dropped)) })
	f.MemoryMiB = of(func(m *measured) float64 { return float64(m.used.memoryBytes) / (1 << 20) })
	f.CPUms = of(func(m *measured) float64 { return 1e3 * m.used.cpuSeconds / max(1, float64(len(m.served()))) })
	f.Low, f.High = f.Throughput, f.Throughput
	for _, m := range runs {
		f.Low, f.High = min(f.Low, m.throughput()), max(f.High, m.throughput())
		f.Failed += m.failed()
	}
	return f
}

func middle(runs []*measured, get func(m *measured) float64) float64 {
	var v []float64
	for _, m := range runs {
		v = append(v, get(m))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }

func (r *report) print(to io.Writer) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	for _, g := range r.Gates {
		fmt.Fprintf(w, "vigild in 8 bits: %s\n", g)
	}
	fmt.Fprintf(w, "models %s, %d people, %d cores, %d rounds of %.0f s, deadline %d ms\n", r.Precision, r.People, r.Cores, r.Rounds, r.DurationSeconds, r.DeadlineMS)
	fmt.Fprintln(w, "SERVER\tLOAD\tOFFERED/s\tANSWERED/s\tLEAST..MOST\tIN TIME/s\tP50 ms\tP99 ms\tREFUSED %\tFAILED\tMEMORY MiB\tCPU ms\tOURS/THIS")
	for _, list := range [][]figures{r.Capacity, r.Loads} {
		ours := map[string]float64{}
		for _, f := range list {
			if f.Server == "vigild" {
				ours[f.Load] = f.Throughput
			}
			ratio := ""
			if v, ok := ours[f.Load]; ok && f.Throughput > 0 {
				ratio = fmt.Sprintf("%.2f", v/f.Throughput)
			}
			fmt.Fprintf(w, "%s\t%s\t%.0f\t%.1f\t%.1f..%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%d\t%.0f\t%.1f\t%s\n",
				f.Server, f.Load, f.Offered, f.Throughput, f.Low, f.High, f.Goodput, f.P50, f.P99, 100*f.Refused, f.Failed, f.MemoryMiB, f.CPUms, ratio)
		}
	}
	if len(r.Scenarios) > 0 {
		fmt.Fprintln(w, "\nSERVER\tSCENARIO\tFIGURE\tVALUE\tQUERIES\tEARLY STOPPING")
		for _, s := range r.Scenarios {
			fmt.Fprintf(w, "%s\t%s\t%s\t%.1f\t%d\t%s\n", s.Server, s.Scenario, s.Figure, s.Value, s.Queries, s.Stopping)
		}
	}
	return w.Flush()
}
