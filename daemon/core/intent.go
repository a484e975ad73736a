package core

import "time"

// pairing decides when the matches at sensors are a grant: at once where identity is the only condition, else when the same
// person matched at both sensors within the window, in either order. What made a grant makes no second one. It is a pure
// state machine: time is an argument. Not safe for concurrent use.
type pairing struct {
	identity, intent string // sensors; intent is empty where there is one condition
	window           time.Duration
	waiting          map[string]condition // by subject: the condition that was met, and waits for the other
}

type condition struct {
	sensor, decision string
	at               time.Time
}

// maxWaiting bounds the people of whom one condition is remembered. The one who waits for longest is forgotten.
const maxWaiting = 1024

// grant is what the conditions were met by.
type grant struct {
	decision string // at the sensor of the identity
	intent   string // at the other; empty where there is none
}

// matched notes a match and reports whether it completes a grant.
func (p *pairing) matched(sensor, subject, decision string, at time.Time) (grant, bool) {
	switch {
	case sensor != p.identity && (sensor != p.intent || p.intent == ""):
		return grant{}, false
	case p.intent == "":
		return grant{decision: decision}, true
	}
	before, ok := p.waiting[subject]
	if ok && before.sensor != sensor && at.Sub(before.at).Abs() <= p.window {
		delete(p.waiting, subject)
		if sensor == p.identity {
			return grant{decision: decision, intent: before.decision}, true
		}
		return grant{decision: before.decision, intent: decision}, true
	}
	p.remember(subject, condition{sensor, decision, at})
	return grant{}, false
}

// remember keeps a condition, and drops those whose time is over.
func (p *pairing) remember(subject string, c condition) {
	if p.waiting == nil {
		p.waiting = map[string]condition{}
	}
	delete(p.waiting, subject)
	oldest := ""
	for s, w := range p.waiting {
		if c.at.Sub(w.at).Abs() > p.window {
			delete(p.waiting, s)
		} else if oldest == "" || w.at.Before(p.waiting[oldest].at) {
			oldest = s
		}
	}
	if len(p.waiting) >= maxWaiting {
		delete(p.waiting, oldest)
	}
	p.waiting[subject] = c
}
