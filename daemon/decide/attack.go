package decide

import "time"

// attack is a place at which a sensor is shown what is no living person.
type attack struct {
	id          uint64
	box         [4]float32
	first, last time.Time
	frames      int     // judged attacks in a row
	liveness    float32 // least of them
	quality     float32 // best of them
	announced   bool
}

// attacked follows an attack and says what is to be announced, if anything.
func (t *Tracker) attacked(now time.Time, o *Observation) (Event, bool) {
	for i := range t.tracks {
		if tr := &t.tracks[i]; now.Sub(tr.last) <= alikeGap && overlaps(tr.box, o.Box) {
			tr.hits, tr.subject = 0, ""
		}
	}
	a := t.findAttack(now, o)
	if a.frames == 0 {
		a.liveness, a.first = o.Liveness, now
	}
	a.box, a.last = o.Box, now
	a.frames++
	a.liveness, a.quality = min(a.liveness, o.Liveness), max(a.quality, o.Quality)
	if a.announced || a.frames < t.policy.UnknownFrames {
		return Event{}, false
	}
	a.announced = true
	return Event{
		Track: a.id, Outcome: PresentationAttack, Quality: a.quality, Frames: a.frames, First: a.first, Last: now,
		Liveness: a.liveness, HasLiveness: o.HasLiveness,
	}, true
}

// findAttack returns the attack at the place, or begins one. When there are MaxTracks, the one not seen for longest makes
// room.
func (t *Tracker) findAttack(now time.Time, o *Observation) *attack {
	oldest := 0
	for i := range t.attacks {
		if overlaps(t.attacks[i].box, o.Box) {
			return &t.attacks[i]
		}
		if t.attacks[i].last.Before(t.attacks[oldest].last) {
			oldest = i
		}
	}
	if len(t.attacks) < MaxTracks {
		t.attacks = t.attacks[:len(t.attacks)+1]
		oldest = len(t.attacks) - 1
	}
	t.next++
	t.attacks[oldest] = attack{id: t.next, first: now}
	return &t.attacks[oldest]
}

// bonaFide begins the count of attacks at the place of a living face anew.
func (t *Tracker) bonaFide(o *Observation) {
	for i := range t.attacks {
		if a := &t.attacks[i]; overlaps(a.box, o.Box) {
			a.frames = 0
		}
	}
}
