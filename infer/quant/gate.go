package quant

import (
	"cmp"
	"fmt"
	"strings"

	"vigil/infer"
)

// Verdicts of the gate. A variant that is refused does not come into a bundle.
const (
	Passed  = "passed"
	Forced  = "forced"
	Refused = "refused"
)

// Limits are what a variant must keep to.
type Limits struct {
	MostLoss float64 // by which the metric may be lower, such as 0.001 for 0.1 percentage points
	Speedup  float64 // how many times as fast it must be at least; 0 is LeastSpeedup
}

// LeastSpeedup is what INT8 must win to be worth another file: less is within the noise of a measurement.
const LeastSpeedup = 1.05

// Evidence is what was measured of both precisions, in the same run on the same machine.
type Evidence struct {
	DataSet, Metric string
	FP32, Variant   float64 // more is better
	FalseFP32       int     // false detections; 0 where nothing is detected
	FalseVariant    int
	Percent         bool // the metric is a rate
	Latency         *Race
	Machine         string
}

// Judge gives the gate of a variant, and whether it may go into the bundle: it may not lose more than the limit, may not
// add false detections, and must be faster by the limit. Without a latency (TensorRT's dialect on a machine without TensorRT) accuracy
// alone decides, and the reason says so. With force a refused one goes in, marked.
func Judge(e Evidence, l Limits, force bool) (gate infer.Gate, in bool) {
	g := infer.Gate{DataSet: e.DataSet, Metric: e.Metric, FP32: e.FP32, Variant: e.Variant, Machine: e.Machine}
	var against []string
	if e.FP32-e.Variant > l.MostLoss+1e-12 {
		against = append(against, fmt.Sprintf("it loses %s of %s, %s is allowed", e.amount(e.FP32-e.Variant), e.Metric, e.amount(l.MostLoss)))
	}
	if e.FalseVariant > e.FalseFP32 {
		against = append(against, fmt.Sprintf("it makes %d false detections, fp32 makes %d", e.FalseVariant, e.FalseFP32))
	}
	speed := "accuracy alone decided: this dialect cannot be timed here"
	if r := e.Latency; r != nil {
		g.FP32Seconds, g.Seconds = r.Seconds[0], r.Seconds[1]
		speed = fmt.Sprintf("%.2f times as fast as fp32", r.Ratio)
		if least := cmp.Or(l.Speedup, LeastSpeedup); r.Ratio < least {
			word := "hardly faster"
			if r.Ratio < 1 {
				word = "slower"
			}
			against = append(against, fmt.Sprintf("it is %s: %.2f times as fast as fp32 (%.2f ms, fp32 %.2f ms), %.2f is asked", word, r.Ratio, r.Seconds[1]*1e3, r.Seconds[0]*1e3, least))
		}
	}
	if len(against) == 0 {
		g.Verdict, g.Reason = Passed, fmt.Sprintf("%s %s, fp32 %s; %s", e.Metric, e.level(e.Variant), e.level(e.FP32), speed)
		return g, true
	}
	g.Verdict, g.Reason = Refused, strings.Join(against, "; ")
	if e.Latency == nil {
		g.Reason += "; " + speed
	}
	if force {
		g.Verdict = Forced
	}
	return g, force
}

func (e *Evidence) level(v float64) string {
	if e.Percent {
		return fmt.Sprintf("%.2f %%", v*100)
	}
	return fmt.Sprintf("%.4f", v)
}

func (e *Evidence) amount(v float64) string {
	if e.Percent {
		return fmt.Sprintf("%.2f points", v*100)
	}
	return fmt.Sprintf("%.4f", v)
}
