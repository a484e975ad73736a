package decide

import (
	"time"

	"vigil/kernels"
)

// MaxTracks bounds the faces followed at one sensor. When full, the one not seen for longest makes room.
const MaxTracks = 16

// Observation is one face of one frame with the answer of the 1:N search.
type Observation struct {
	Box     [4]float32 // x, y, width, height in pixels
	Values  []int8     // template, borrowed for the call
	Scale   float32
	Quality float32 // 0..1
	Subject string  // best candidate of the search; "" if the gallery is empty
	Score   float32 // of that candidate
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
}

// Tracker follows the faces at one sensor, so that a person who stays is one event.
//
// A face continues a track when its template is close to the track's (over same) or it overlaps the track's box and its
// template is at least alike (over alike). A different person at the same place therefore starts a track of its own. A
// match is announced once ConfirmFrames judged frames name the same person, a stranger after UnknownFrames judged
// frames without any; a person announced as stranger may still become a match. A track ends when it was not seen for
// EventHold.
type Tracker struct {
	policy *Policy
	tracks []track
	next   uint64
}

// Similarity from which two templates of neighbouring frames are one person. Neighbouring frames of one face score far
// higher than pictures taken on different days, so the first is above the identification threshold of the models in use.
const (
	same  = 0.55
	alike = 0.30
)

type track struct {
	id          uint64
	box         [4]float32
	values      []int8
	scale       float32
	first, last time.Time
	frames      int
	subject     string // candidate of the latest frames that were over the threshold
	hits        int    // consecutive ones
	misses      int
	score       float32
	quality     float32
	announced   bool   // something was said about this visit
	as          string // the person it was announced as; "" a stranger
	fresh       bool   // matched in this frame already
}

// NewTracker follows nobody yet. dimension is that of the templates.
func NewTracker(p *Policy, dimension int) *Tracker {
	t := &Tracker{policy: p, tracks: make([]track, 0, MaxTracks)}
	for i := range MaxTracks {
		t.tracks[:MaxTracks][i].values = make([]int8, dimension)
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
		tr := t.find(&faces[i])
		if tr == nil {
			tr = t.begin(now)
		}
		tr.see(now, &faces[i])
		if faces[i].Quality < t.policy.ProbeQuality {
			continue
		}
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
		clear(t.tracks[:MaxTracks][i].values)
	}
	t.tracks = t.tracks[:0]
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
}

// remove ends track i; its buffer changes places with the last one's and is overwritten.
func (t *Tracker) remove(i int) {
	last := len(t.tracks) - 1
	clear(t.tracks[i].values)
	t.tracks[i], t.tracks[last] = t.tracks[last], t.tracks[i]
	t.tracks = t.tracks[:last]
}

// find returns the track that the face continues, the most similar one first.
func (t *Tracker) find(o *Observation) *track {
	var best *track
	var most float32
	for i := range t.tracks {
		tr := &t.tracks[i]
		if tr.fresh {
			continue
		}
		s := cosine(tr, o)
		if (s >= same || s >= alike && overlaps(tr.box, o.Box)) && (best == nil || s > most) {
			best, most = tr, s
		}
	}
	return best
}

func cosine(tr *track, o *Observation) float32 {
	var d [1]int32
	kernels.DotRows(d[:], tr.values, len(tr.values), o.Values)
	return float32(d[0]) * tr.scale * o.Scale
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
	*tr = track{id: t.next, values: tr.values, first: now}
	return tr
}

// see moves the track to where the face is now. The template follows, for faces turn.
func (tr *track) see(now time.Time, o *Observation) {
	tr.box, tr.scale, tr.last, tr.fresh = o.Box, o.Scale, now, true
	copy(tr.values, o.Values)
}

// judge counts the evidence of one frame and says what is to be announced, if anything.
func (tr *track) judge(o *Observation, p *Policy) (Event, bool) {
	tr.frames++
	tr.quality = max(tr.quality, o.Quality)
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
		Frames: tr.frames, First: tr.first, Last: tr.last,
	}
}
