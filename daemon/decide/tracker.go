package decide

import (
	"slices"
	"time"

	"vigil/kernels"
)

// MaxTracks bounds the faces followed at one sensor. When full, the one not seen for longest makes room.
const MaxTracks = 16

// Observation is one face of one frame with the answer of the 1:N search.
type Observation struct {
	Box     [4]float32 // x, y, width, height in pixels
	Values  []int8     // template, borrowed for the call; empty for an attack
	Scale   float32
	Quality float32 // 0..1
	Subject string  // best candidate of the search; "" if the gallery is empty
	Score   float32 // of that candidate
	// Liveness is the likelihood of a bona fide presentation, 0..1, if HasLiveness.
	Liveness    float32
	HasLiveness bool
}

// presented is what the policy admits by.
func (o *Observation) presented() Presented {
	return Presented{Quality: o.Quality, Liveness: o.Liveness, HasLiveness: o.HasLiveness}
}

// Event is one decision about one person in front of a sensor.
type Event struct {
	Track   uint64 // the same for all events about one visit
	Outcome Outcome
	Subject string  // of a match
	Score   float32 // best score of the frames judged
	Quality float32 // best quality of the frames judged
	Frames  int     // judged so far
	First   time.Time
	Last    time.Time
	// Liveness is the least of the frames judged, if HasLiveness.
	Liveness    float32
	HasLiveness bool
}

// Tracker follows the faces at one sensor, so that a person who stays is one event.
//
// A face continues a track when its template is close (over same) to the track's latest or best one. A hand before the
// face or a turn of the head changes a template for a frame or two, so at the same place and within half a second a
// template that is barely alike (over alike) will do. A different person at the same place starts a track of its own; in
// the rare case that it does not, a match of that person is announced all the same. A match is announced once
// ConfirmFrames judged frames name the same person, a stranger after UnknownFrames judged frames without any; a person
// announced as stranger may still become a match. A track ends when it was not seen for EventHold.
//
// A face that is judged a presentation attack has no template. It is followed by its place alone and announced once, after
// UnknownFrames judged frames in a row; a bona fide face at the place begins the count anew. It breaks the run of frames
// by which a person at its place would become a match: a picture that passes for alive now and then gains nothing.
type Tracker struct {
	policy  *Policy
	tracks  []track
	attacks []attack
	next    uint64
}

// Similarity from which two templates of neighbouring frames are one person. Neighbouring frames of one face score far
// higher than pictures taken on different days, so the first is above the identification threshold of the models in use;
// the second is exceeded by about one in thirty pairs of different people.
const (
	same  = 0.55
	alike = 0.20
)

// alikeGap is how long after its latest frame a track may be continued by place and alike.
const alikeGap = 500 * time.Millisecond

// template is a copy of a face's template.
type template struct {
	values  []int8
	scale   float32
	quality float32
}

func (t *template) set(o *Observation) {
	copy(t.values, o.Values)
	t.scale, t.quality = o.Scale, o.Quality
}

func (t *template) cosine(o *Observation) float32 {
	var d [1]int32
	kernels.DotRows(d[:], t.values, len(t.values), o.Values)
	return float32(d[0]) * t.scale * o.Scale
}

func (t *template) wipe() {
	clear(t.values)
	t.scale, t.quality = 0, 0
}

type track struct {
	id          uint64
	box         [4]float32
	latest      template
	best        template // of the best quality so far
	first, last time.Time
	frames      int
	subject     string // candidate of the latest frames that were over the threshold
	hits        int    // consecutive ones
	misses      int
	score       float32
	quality     float32
	liveness    float32 // least, if judged
	hasLiveness bool
	announced   bool   // something was said about this visit
	as          string // the person it was announced as; "" a stranger
	fresh       bool   // matched in this frame already
}

// NewTracker follows nobody yet. dimension is that of the templates.
func NewTracker(p *Policy, dimension int) *Tracker {
	t := &Tracker{policy: p, tracks: make([]track, 0, MaxTracks), attacks: make([]attack, 0, MaxTracks)}
	for i := range MaxTracks {
		tr := &t.tracks[:MaxTracks][i]
		tr.latest.values, tr.best.values = make([]int8, dimension), make([]int8, dimension)
	}
	return t
}

// Observe takes the faces of one frame and appends what is to be announced to events.
func (t *Tracker) Observe(now time.Time, faces []Observation, events []Event) []Event {
	t.expire(now)
	for i := range t.tracks {
		t.tracks[i].fresh = false
	}
	for i := range faces {
		outcome, ok := t.policy.Admit(faces[i].presented())
		if outcome == PresentationAttack {
			if e, ok := t.attacked(now, &faces[i]); ok {
				events = append(events, e)
			}
			continue
		}
		if len(faces[i].Values) == 0 {
			continue // an attack too poor to be called one
		}
		tr := t.find(now, &faces[i])
		if tr == nil {
			tr = t.begin(now)
		}
		tr.see(now, &faces[i])
		if !ok {
			continue
		}
		t.bonaFide(&faces[i])
		if e, ok := tr.judge(&faces[i], t.policy); ok {
			events = append(events, e)
		}
	}
	return events
}

// Tracks is the number of faces followed.
func (t *Tracker) Tracks() int { return len(t.tracks) }

// Reset forgets everybody and overwrites the templates.
func (t *Tracker) Reset() {
	for i := range t.tracks[:MaxTracks] {
		t.tracks[:MaxTracks][i].wipe()
	}
	t.tracks, t.attacks = t.tracks[:0], t.attacks[:0]
}

// expire ends the tracks that were not seen for the hold time, or that lie in the future of a clock that was set back.
func (t *Tracker) expire(now time.Time) {
	for i := 0; i < len(t.tracks); {
		if away := now.Sub(t.tracks[i].last); away <= t.policy.EventHold && away >= -t.policy.EventHold {
			i++
			continue
		}
		t.remove(i)
	}
	t.attacks = slices.DeleteFunc(t.attacks, func(a attack) bool {
		away := now.Sub(a.last)
		return away > t.policy.EventHold || away < -t.policy.EventHold
	})
}

func (tr *track) wipe() {
	tr.latest.wipe()
	tr.best.wipe()
}

// remove ends track i; its buffers change places with the last one's and are overwritten.
func (t *Tracker) remove(i int) {
	last := len(t.tracks) - 1
	t.tracks[i].wipe()
	t.tracks[i], t.tracks[last] = t.tracks[last], t.tracks[i]
	t.tracks = t.tracks[:last]
}

// find returns the track that the face continues, the most similar one first.
func (t *Tracker) find(now time.Time, o *Observation) *track {
	var best *track
	var most float32
	for i := range t.tracks {
		tr := &t.tracks[i]
		if tr.fresh {
			continue
		}
		s := max(tr.latest.cosine(o), tr.best.cosine(o))
		here := s >= alike && now.Sub(tr.last) <= alikeGap && overlaps(tr.box, o.Box)
		if (s >= same || here) && (best == nil || s > most) {
			best, most = tr, s
		}
	}
	return best
}

// overlaps reports whether two boxes share at least half of the smaller one.
func overlaps(a, b [4]float32) bool {
	w := min(a[0]+a[2], b[0]+b[2]) - max(a[0], b[0])
	h := min(a[1]+a[3], b[1]+b[3]) - max(a[1], b[1])
	return w > 0 && h > 0 && 2*w*h >= min(a[2]*a[3], b[2]*b[3])
}

func (t *Tracker) begin(now time.Time) *track {
	if len(t.tracks) == MaxTracks {
		oldest := 0
		for i := range t.tracks {
			if t.tracks[i].last.Before(t.tracks[oldest].last) {
				oldest = i
			}
		}
		t.remove(oldest)
	}
	t.tracks = t.tracks[:len(t.tracks)+1]
	tr := &t.tracks[len(t.tracks)-1]
	t.next++
	*tr = track{id: t.next, latest: tr.latest, best: tr.best, first: now}
	return tr
}

// see moves the track to where the face is now. The template follows, for faces turn.
func (tr *track) see(now time.Time, o *Observation) {
	tr.box, tr.last, tr.fresh = o.Box, now, true
	tr.latest.set(o)
	if o.Quality >= tr.best.quality {
		tr.best.set(o)
	}
}

// judge counts the evidence of one frame and says what is to be announced, if anything.
func (tr *track) judge(o *Observation, p *Policy) (Event, bool) {
	tr.frames++
	tr.quality = max(tr.quality, o.Quality)
	if o.HasLiveness && (!tr.hasLiveness || o.Liveness < tr.liveness) {
		tr.liveness, tr.hasLiveness = o.Liveness, true
	}
	if o.Subject == "" || o.Score < p.IdentifyThreshold {
		tr.misses++
		tr.hits, tr.subject = 0, ""
		if tr.announced || tr.misses < p.UnknownFrames {
			tr.score = max(tr.score, o.Score)
			return Event{}, false
		}
		return tr.announce(NoMatch, "", max(tr.score, o.Score)), true
	}
	if o.Subject != tr.subject {
		tr.subject, tr.hits, tr.score = o.Subject, 0, o.Score
	}
	tr.hits++
	tr.score = max(tr.score, o.Score)
	if tr.hits < p.ConfirmFrames || tr.announced && tr.as == o.Subject {
		return Event{}, false
	}
	return tr.announce(Match, o.Subject, tr.score), true
}

func (tr *track) announce(outcome Outcome, subject string, score float32) Event {
	tr.announced, tr.as = true, subject
	return Event{
		Track: tr.id, Outcome: outcome, Subject: subject, Score: score, Quality: tr.quality,
		Frames: tr.frames, First: tr.first, Last: tr.last, Liveness: tr.liveness, HasLiveness: tr.hasLiveness,
	}
}
