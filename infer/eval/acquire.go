package eval

import (
	"context"
	"fmt"
	"math"
	"time"
)

// Acquired are the templates of a protocol's samples.
type Acquired struct {
	Templates []*Template // per sample; nil where there is none
	Failures  []Failure
	Quality   []float64 // per sample; NaN where it was not measured
	Seconds   float64   // mean per sample
}

// Progress is told how far a part of the work is. It is called often.
type Progress func(what string, done, total int)

// Acquire makes a template of every sample, in order. Failures of the counted kinds are collected, others end it.
func Acquire(ctx context.Context, samples []Sample, x Extractor, progress Progress) (*Acquired, error) {
	a := &Acquired{Templates: make([]*Template, len(samples)), Quality: make([]float64, len(samples))}
	start := time.Now()
	for i, s := range samples {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		t, err := x.Extract(ctx, s.Path)
		if a.Quality[i] = t.Quality; err != nil && t.Quality == 0 {
			a.Quality[i] = math.NaN() // a failure says a quality only if it measured one
		}
		if err == nil {
			a.Templates[i] = &t
		} else if f, ok := failure(s.ID, err); ok {
			a.Failures = append(a.Failures, f)
		} else {
			return nil, fmt.Errorf("%s: %w", s.Path, err)
		}
		progress("samples", i+1, len(samples))
	}
	a.Seconds = time.Since(start).Seconds() / float64(max(1, len(samples)))
	return a, nil
}

// Run is one system's answers to the comparisons of a protocol.
type Run struct {
	Name     string    // short and unique in a report: "fp32", "nbis"
	System   string    // model, runtime or program, for people
	Scores   []float64 // per comparison; NoScore where it could not be made
	Failures []Failure
	Quality  []float64 // per sample; NaN or absent where it was not measured
	Seconds  float64   // mean per sample for a template; 0 if unknown
}

// stride is how many comparisons are made between two looks at the context.
const stride = 1 << 12

// Run compares the templates as the protocol says, whose samples must be those that were acquired.
func (a *Acquired) Run(ctx context.Context, name string, p *Protocol, x Extractor, progress Progress) (*Run, error) {
	if len(a.Templates) != len(p.Samples) {
		return nil, fmt.Errorf("%d templates for the %d samples of the protocol", len(a.Templates), len(p.Samples))
	}
	r := &Run{Name: name, Failures: a.Failures, Quality: a.Quality, Seconds: a.Seconds}
	r.Scores = make([]float64, len(p.Comparisons))
	for i, c := range p.Comparisons {
		if i%stride == 0 {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			progress("comparisons", i, len(p.Comparisons))
		}
		r.Scores[i] = NoScore
		if ta, tb := a.Templates[c.A], a.Templates[c.B]; ta != nil && tb != nil {
			v := x.Compare(*ta, *tb)
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, unranked(p.Samples[c.A].ID, p.Samples[c.B].ID, v)
			}
			r.Scores[i] = v
		}
	}
	progress("comparisons", len(p.Comparisons), len(p.Comparisons))
	return r, nil
}

func unranked(a, b string, v float64) error {
	return fmt.Errorf("%s with %s: the score is %v, which cannot be ranked", a, b, v)
}

// Collect acquires the samples of a protocol and runs it.
func Collect(ctx context.Context, name string, p *Protocol, x Extractor, progress Progress) (*Run, error) {
	a, err := Acquire(ctx, p.Samples, x, progress)
	if err != nil {
		return nil, err
	}
	return a.Run(ctx, name, p, x, progress)
}
