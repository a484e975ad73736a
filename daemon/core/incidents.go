package core

import (
	"maps"
	"slices"
	"time"
)

// Bounds of what a sensor that comes and goes may write into the audit log.
const (
	incidentBurst = 24              // entries at once
	incidentEvery = 2 * time.Minute // one more
)

// stormRules say when a sensor that comes and goes is unstable.
type stormRules struct {
	falls  int           // so many
	within time.Duration // in this time
	calm   time.Duration // without one: it is over
}

// storms are the rules of all sensors; tests have shorter times.
var storms = stormRules{falls: 5, within: time.Minute, calm: 30 * time.Second}

// States of a sensor beside those of its driver.
const (
	stateRunning  = "running"
	stateFailed   = "failed"
	stateEnded    = "ended"
	stateReset    = "reset"    // lost and found between two frames
	stateUnstable = "unstable" // it comes and goes: a loose plug, a device that resets again and again
)

// incident is what is to be audited of a sensor, as the event "sensor." and its kind.
type incident struct {
	kind   string // a state, or recovered
	detail map[string]any
}

const recovered = "recovered"

// incidents follows a sensor that stops delivering and comes back, and says what of it is audited: every state that it falls
// into and every recovery, but in a storm only its beginning, the first of each state, and its end. Whatever comes, the
// entries are bounded; those left out are counted and told with the next. It is a pure state machine: time is an argument.
type incidents struct {
	rules stormRules

	away   string // why it does not deliver; empty while it does
	since  time.Time
	silent bool // that it is away was not audited
	recent []time.Time
	last   time.Time // fall
	falls  uint64    // all of them

	storm    bool
	stormed  time.Time         // when the storm was noticed
	stormSet map[string]uint64 // falls of it by state

	tokens    float64
	refilled  time.Time
	unaudited uint64 // all
	untold    uint64 // since the last entry
}

func newIncidents(r stormRules) incidents { return incidents{rules: r, tokens: incidentBurst} }

// fall is told of a sensor that does not deliver, and why. A state that goes on is no news.
func (i *incidents) fall(now time.Time, state, reason string) []incident {
	if i.away == state {
		return nil
	}
	list := i.calm(now)
	if i.away == "" {
		i.since = now
	}
	i.away = state
	began := i.count(now, state)
	switch {
	case began:
		return i.audit(list, now, stateUnstable, map[string]any{"reason": reason, "state": state, "falls": len(i.recent), "within_seconds": i.rules.within.Seconds()})
	case i.storm && i.stormSet[state] > 1:
		i.leaveOut()
		return list
	}
	return i.audit(list, now, state, map[string]any{"reason": reason})
}

// lost is told how often the driver lost its device and found it again without anybody noticing.
func (i *incidents) lost(now time.Time, times uint64) []incident {
	if times == 0 {
		return nil
	}
	list, began := i.calm(now), false
	seen := min(times, uint64(i.rules.falls)) // more make no other storm
	for range seen {
		began = i.count(now, stateReset) || began
	}
	if i.falls += times - seen; i.storm {
		i.stormSet[stateReset] += times - seen
	}
	if !began {
		return list
	}
	return i.audit(list, now, stateUnstable, map[string]any{
		"reason": "the device is lost and found again and again", "state": stateReset, "falls": len(i.recent), "within_seconds": i.rules.within.Seconds(),
	})
}

// frame is told of every frame.
func (i *incidents) frame(now time.Time) []incident {
	away, since, silent := i.away, i.since, i.silent
	i.away, i.silent = "", false
	switch {
	case i.storm:
		return i.calm(now)
	case away == "":
		return nil
	case silent: // nobody was told that it is gone
		i.leaveOut()
		return nil
	}
	return i.audit(nil, now, recovered, map[string]any{"from": away, "away_seconds": seconds(now.Sub(since))})
}

// calm is told of the time while nothing happens: a storm ends. A sensor that is away then is in that state for good.
func (i *incidents) calm(now time.Time) []incident {
	if !i.storm || now.Sub(i.last) < i.rules.calm {
		return nil
	}
	total := uint64(0)
	for _, n := range i.stormSet {
		total += n
	}
	detail := map[string]any{
		"from": stateUnstable, "falls": total, "by_state": maps.Clone(i.stormSet), "seconds": seconds(now.Sub(i.stormed)),
	}
	i.storm, i.recent = false, i.recent[:0]
	kind := recovered
	if i.away != "" {
		kind = i.away
	}
	return i.audit(nil, now, kind, detail)
}

// shown is the state that people see.
func (i *incidents) shown(now time.Time, state string) string {
	if i.storm && now.Sub(i.last) < i.rules.calm {
		return stateUnstable
	}
	return state
}

// count notes a fall and says whether a storm begins with it.
func (i *incidents) count(now time.Time, state string) bool {
	i.falls++
	i.last = now
	i.recent = append(slices.DeleteFunc(i.recent, func(t time.Time) bool { return now.Sub(t) > i.rules.within }), now)
	if n := len(i.recent); n > i.rules.falls {
		i.recent = i.recent[n-i.rules.falls:]
	}
	if i.storm {
		i.stormSet[state]++
		return false
	}
	if len(i.recent) < i.rules.falls {
		return false
	}
	i.storm, i.stormed, i.stormSet = true, now, map[string]uint64{state: uint64(len(i.recent))}
	return true
}

// audit appends an entry, if there is room for one.
func (i *incidents) audit(list []incident, now time.Time, kind string, detail map[string]any) []incident {
	if !i.refilled.IsZero() {
		i.tokens = min(incidentBurst, i.tokens+now.Sub(i.refilled).Seconds()/incidentEvery.Seconds())
	}
	i.refilled = now
	if i.tokens < 1 {
		i.leaveOut()
		return list
	}
	i.tokens--
	i.silent = false
	if i.untold > 0 {
		detail["unaudited"] = i.untold
		i.untold = 0
	}
	return append(list, incident{kind, detail})
}

func (i *incidents) leaveOut() {
	i.silent = i.away != ""
	i.unaudited++
	i.untold++
}

// seconds of a time, to the millisecond.
func seconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }
