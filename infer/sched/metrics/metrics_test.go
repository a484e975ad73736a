package metrics_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"vigil/infer/sched"
	"vigil/infer/sched/metrics"
)

type instant struct{}

func (instant) Run(int, []int) error { return nil }

func TestEveryMetricIsGoodAndCounts(t *testing.T) {
	s, err := sched.New(instant{}, sched.Options{Name: "face", Places: [sched.Classes]int{4, 4, 4}})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := s.Do(t.Context(), sched.Sensor, time.Time{}, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Do(t.Context(), sched.API, time.Time{}, 1); err == nil {
		t.Fatal("a closed scheduler took a job")
	}
	c := metrics.New(func() []sched.Stats { return []sched.Stats{s.Stats()} })
	problems, err := testutil.CollectAndLint(c)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
	want := `
# HELP vigil_sched_admitted_total Jobs that got a place in the queue.
# TYPE vigil_sched_admitted_total counter
vigil_sched_admitted_total{class="api",engine="face"} 0
vigil_sched_admitted_total{class="bulk",engine="face"} 0
vigil_sched_admitted_total{class="sensor",engine="face"} 3
# HELP vigil_sched_refused_total Jobs that were not run, by reason.
# TYPE vigil_sched_refused_total counter
vigil_sched_refused_total{class="api",engine="face",reason="closing"} 1
`
	for _, class := range []string{"api", "bulk", "sensor"} {
		for _, reason := range []string{"closing", "deadline", "expired", "full"} {
			if class != "api" || reason != "closing" {
				want += `vigil_sched_refused_total{class="` + class + `",engine="face",reason="` + reason + `"} 0` + "\n"
			}
		}
	}
	if err := testutil.CollectAndCompare(c, strings.NewReader(want), "vigil_sched_admitted_total", "vigil_sched_refused_total"); err != nil {
		t.Error(err)
	}
}
