package core

import (
	"fmt"
	"testing"
	"time"
)

func TestConditionsOfAGrant(t *testing.T) {
	start := time.Unix(1000, 0)
	type match struct {
		sensor, subject string
		after           time.Duration
		want            string // "identity+intent" decisions, empty: no grant
	}
	for name, c := range map[string]struct {
		intent string
		seen   []match
	}{
		"identity alone":         {"", []match{{"door", "ann", 0, "0+"}, {"desk", "ann", 0, ""}, {"door", "bob", 0, "2+"}, {"door", "ann", 0, "3+"}}},
		"identity, then intent":  {"desk", []match{{"door", "ann", 0, ""}, {"desk", "ann", 9 * time.Second, "0+1"}}},
		"intent, then identity":  {"desk", []match{{"desk", "ann", 0, ""}, {"door", "ann", 9 * time.Second, "1+0"}}},
		"too late":               {"desk", []match{{"door", "ann", 0, ""}, {"desk", "ann", 11 * time.Second, ""}}},
		"too late, then in time": {"desk", []match{{"door", "ann", 0, ""}, {"desk", "ann", 11 * time.Second, ""}, {"door", "ann", 12 * time.Second, "2+1"}}},
		"somebody else":          {"desk", []match{{"door", "ann", 0, ""}, {"desk", "bob", 0, ""}}},
		"another sensor":         {"desk", []match{{"door", "ann", 0, ""}, {"hall", "ann", 0, ""}}},
		"the same sensor twice":  {"desk", []match{{"door", "ann", 0, ""}, {"door", "ann", time.Second, ""}}},
		"one intent, one grant":  {"desk", []match{{"desk", "ann", 0, ""}, {"door", "ann", 1, "1+0"}, {"door", "ann", 2, ""}}},
		"a clock set back":       {"desk", []match{{"door", "ann", time.Hour, ""}, {"desk", "ann", 0, ""}}},
	} {
		p := pairing{identity: "door", intent: c.intent, window: 10 * time.Second}
		for i, m := range c.seen {
			got := ""
			if g, ok := p.matched(m.sensor, m.subject, fmt.Sprint(i), start.Add(m.after)); ok {
				got = g.decision + "+" + g.intent
			}
			if got != m.want {
				t.Errorf("%s: match %d: %q, want %q", name, i, got, m.want)
			}
		}
	}
}

func TestWaitingConditionsAreBounded(t *testing.T) {
	p := pairing{identity: "door", intent: "desk", window: time.Hour}
	for i := range 3 * maxWaiting {
		p.matched("door", fmt.Sprint(i), "d", time.Unix(int64(i), 0))
	}
	if len(p.waiting) > maxWaiting {
		t.Errorf("%d people are remembered", len(p.waiting))
	}
	if _, ok := p.matched("desk", fmt.Sprint(3*maxWaiting-1), "e", time.Unix(3*maxWaiting, 0)); !ok {
		t.Error("the newest was forgotten")
	}
}
