package quant_test

import (
	"strings"
	"testing"

	"vigil/infer/quant"
)

func TestJudge(t *testing.T) {
	race := func(ratio float64) *quant.Race {
		return &quant.Race{Seconds: [2]float64{0.010, 0.010 / ratio}, Ratio: ratio}
	}
	base := quant.Evidence{DataSet: "d", Metric: "accuracy", FP32: 0.990, Variant: 0.990, Percent: true, Latency: race(2), Machine: "m"}
	with := func(f func(*quant.Evidence)) quant.Evidence { e := base; f(&e); return e }
	for _, c := range []struct {
		name    string
		e       quant.Evidence
		force   bool
		in      bool
		verdict string
		words   []string
	}{
		{"as good and faster", base, false, true, quant.Passed, []string{"99.00 %", "2.00 times as fast"}},
		{"loses what is allowed", with(func(e *quant.Evidence) { e.Variant = 0.989 }), false, true, quant.Passed, nil},
		{"loses more", with(func(e *quant.Evidence) { e.Variant = 0.988 }), false, false, quant.Refused, []string{"loses 0.20 points", "0.10 points is allowed"}},
		{"gains", with(func(e *quant.Evidence) { e.Variant = 0.995 }), false, true, quant.Passed, nil},
		{"slower", with(func(e *quant.Evidence) { e.Latency = race(0.5) }), false, false, quant.Refused, []string{"slower", "20.00 ms"}},
		{"hardly faster", with(func(e *quant.Evidence) { e.Latency = race(1.02) }), false, false, quant.Refused, []string{"hardly faster"}},
		{"both", with(func(e *quant.Evidence) { e.Variant, e.Latency = 0.5, race(0.5) }), false, false, quant.Refused, []string{"loses", "slower"}},
		{"false detections", with(func(e *quant.Evidence) { e.FalseVariant = 1 }), false, false, quant.Refused, []string{"1 false"}},
		{"forced", with(func(e *quant.Evidence) { e.Variant = 0.5 }), true, true, quant.Forced, []string{"loses"}},
		{"force is not needed", base, true, true, quant.Passed, nil},
		{"not timed", with(func(e *quant.Evidence) { e.Latency = nil }), false, true, quant.Passed, []string{"accuracy alone"}},
		{"not timed and bad", with(func(e *quant.Evidence) { e.Latency, e.Variant = nil, 0.1 }), false, false, quant.Refused, []string{"loses", "accuracy alone"}},
	} {
		g, in := quant.Judge(c.e, quant.Limits{MostLoss: 0.001}, c.force)
		if in != c.in || g.Verdict != c.verdict || g.FP32 != c.e.FP32 || g.Variant != c.e.Variant || g.Machine != "m" || g.DataSet != "d" {
			t.Errorf("%s: %v, %+v", c.name, in, g)
		}
		for _, w := range c.words {
			if !strings.Contains(g.Reason, w) {
				t.Errorf("%s: the reason %q does not say %q", c.name, g.Reason, w)
			}
		}
	}
}
