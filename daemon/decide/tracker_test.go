package decide

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"vigil/kernels"
)

const dim = 32

// like makes the template of person a that scores c against a's plain one; the rest of its length points to b.
func like(a int, c float64, b int) ([]int8, float32) {
	v := make([]float32, dim)
	v[a] = float32(c)
	v[b] += float32(math.Sqrt(1 - c*c))
	out := make([]int8, dim)
	return out, kernels.QuantizeUnit(out, v)
}

// seen is a good face of person a at a place (x of a box of 100x100).
func seen(a int, x float32, subject string, score float32) Observation {
	values, scale := like(a, 1, (a+1)%dim)
	return Observation{Box: [4]float32{x, 50, 100, 100}, Values: values, Scale: scale, Quality: 0.8, Subject: subject, Score: score}
}

func known(a int, x float32) Observation    { return seen(a, x, fmt.Sprintf("p%d", a), 0.9) }
func stranger(a int, x float32) Observation { return seen(a, x, "p0", 0.2) }

func bad(o Observation) Observation { o.Quality = 0.01; return o }

// turned is the same face with a template that is only alike.
func turned(o Observation, a int, c float64) Observation {
	o.Values, o.Scale = like(a, c, dim-1)
	return o
}

func trackPolicy() *Policy {
	return &Policy{IdentifyThreshold: 0.5, ProbeQuality: 0.05, ConfirmFrames: 2, UnknownFrames: 4, EventHold: 2 * time.Second}
}

// player feeds frames at 10 per second.
type player struct {
	tracker *Tracker
	now     time.Time
	said    []string
	events  []Event
}

func newPlayer() *player { return &player{tracker: NewTracker(trackPolicy(), dim), now: noon} }

// frames shows the same faces n times.
func (p *player) frames(n int, faces ...Observation) *player {
	for range n {
		p.now = p.now.Add(100 * time.Millisecond)
		for _, e := range p.tracker.Observe(p.now, faces, nil) {
			p.events = append(p.events, e)
			p.said = append(p.said, strings.TrimSuffix(string(e.Outcome)+" "+e.Subject, " "))
		}
	}
	return p
}

// pass lets time go by without a frame.
func (p *player) pass(d time.Duration) *player { p.now = p.now.Add(d); return p }

func TestOneVisitIsOneEvent(t *testing.T) {
	for _, c := range []struct {
		name string
		play func(p *player)
		want string
	}{
		{"thirty frames of one person", func(p *player) { p.frames(30, known(1, 0)) }, "match p1"},
		{"one frame is not enough", func(p *player) { p.frames(1, known(1, 0)) }, ""},
		{"two frames are", func(p *player) { p.frames(2, known(1, 0)) }, "match p1"},
		{"two people after each other at one place", func(p *player) { p.frames(5, known(1, 0)).frames(5, known(2, 0)) }, "match p1, match p2"},
		{"two people side by side", func(p *player) { p.frames(5, known(1, 0), known(2, 300)) }, "match p1, match p2"},
		{"a stranger", func(p *player) { p.frames(30, stranger(1, 0)) }, "no_match"},
		{"a stranger too short to tell", func(p *player) { p.frames(3, stranger(1, 0)) }, ""},
		{"an empty gallery", func(p *player) { p.frames(30, seen(1, 0, "", 0)) }, "no_match"},
		{"at the threshold", func(p *player) { p.frames(30, seen(1, 0, "p1", 0.5)) }, "match p1"},
		{"just under it", func(p *player) { p.frames(30, seen(1, 0, "p1", 0.4999)) }, "no_match"},
		{"a stranger who is recognised later", func(p *player) { p.frames(10, stranger(1, 0)).frames(10, known(1, 0)) }, "no_match, match p1"},
		{"a person who turns away later", func(p *player) { p.frames(5, known(1, 0)).frames(30, stranger(1, 0)) }, "match p1"},
		{"low quality is not judged", func(p *player) { p.frames(30, bad(known(1, 0))) }, ""},
		{"low quality does not make a stranger", func(p *player) { p.frames(30, bad(stranger(1, 0))) }, ""},
		{"low quality between", func(p *player) { p.frames(1, known(1, 0)).frames(10, bad(stranger(1, 0))).frames(1, known(1, 0)) }, "match p1"},
		{"frames that do not agree", func(p *player) {
			p.frames(1, known(1, 0)).frames(1, stranger(1, 0)).frames(1, known(1, 0)).frames(1, stranger(1, 0))
		}, ""},
		{"candidates that change", func(p *player) {
			p.frames(1, seen(1, 0, "p1", 0.9)).frames(1, seen(1, 0, "p2", 0.9)).frames(1, seen(1, 0, "p1", 0.9)).frames(2, seen(1, 0, "p2", 0.9))
		}, "match p2"},
		{"away for less than the hold", func(p *player) { p.frames(5, known(1, 0)).pass(1800*time.Millisecond).frames(5, known(1, 0)) }, "match p1"},
		{"away for longer", func(p *player) { p.frames(5, known(1, 0)).pass(2100*time.Millisecond).frames(5, known(1, 0)) }, "match p1, match p1"},
		{"away while others are there", func(p *player) {
			p.frames(5, known(1, 0)).frames(25, known(2, 300)).frames(5, known(1, 0))
		}, "match p1, match p2, match p1"},
		{"walks through the picture", func(p *player) {
			for x := range 20 {
				p.frames(1, known(1, float32(40*x)))
			}
		}, "match p1"},
		{"jumps to another place", func(p *player) { p.frames(5, known(1, 0)).frames(5, known(1, 900)) }, "match p1"},
		{"crossing paths", func(p *player) {
			for x := range 20 {
				p.frames(1, known(1, float32(20*x)), known(2, float32(400-20*x)))
			}
		}, "match p1, match p2"},
		{"crossing strangers", func(p *player) {
			for x := range 20 {
				p.frames(1, stranger(1, float32(20*x)), stranger(2, float32(400-20*x)))
			}
		}, "no_match, no_match"},
		{"the order of the faces changes", func(p *player) {
			for range 10 {
				p.frames(1, known(1, 0), known(2, 60)).frames(1, known(2, 60), known(1, 0))
			}
		}, "match p2, match p1"},
		{"a hand before the face", func(p *player) {
			p.frames(5, known(1, 0)).frames(2, turned(stranger(1, 0), 1, 0.3)).frames(5, known(1, 0))
		}, "match p1"},
		{"alike at another place is somebody else", func(p *player) {
			p.frames(5, known(1, 0)).frames(4, turned(stranger(1, 400), 1, 0.3))
		}, "match p1, no_match"},
		{"alike and late is somebody else", func(p *player) {
			p.frames(5, known(1, 0)).pass(600*time.Millisecond).frames(4, turned(stranger(1, 0), 1, 0.3))
		}, "match p1, no_match"},
		{"the clock is set back by an hour", func(p *player) { p.frames(5, known(1, 0)).pass(-time.Hour).frames(5, known(1, 0)) }, "match p1, match p1"},
		{"the clock is set back a little", func(p *player) { p.frames(5, known(1, 0)).pass(-time.Second).frames(5, known(1, 0)) }, "match p1"},
		{"reset", func(p *player) {
			p.frames(5, known(1, 0))
			p.tracker.Reset()
			p.frames(5, known(1, 0))
		}, "match p1, match p1"},
		{"nobody", func(p *player) { p.frames(10) }, ""},
	} {
		p := newPlayer()
		if c.play(p); strings.Join(p.said, ", ") != c.want {
			t.Errorf("%s: said %q, want %q", c.name, p.said, c.want)
		}
	}
}

func TestEventTellsOfTheVisit(t *testing.T) {
	p := newPlayer()
	weak := seen(1, 0, "p1", 0.6)
	weak.Quality = 0.3
	p.frames(1, weak).frames(5, known(1, 0)).pass(time.Minute).frames(4, stranger(2, 0))
	if len(p.events) != 2 {
		t.Fatalf("said %q", p.said)
	}
	want := Event{Track: 1, Outcome: Match, Subject: "p1", Score: 0.9, Quality: 0.8, Frames: 2, First: at(0.1), Last: at(0.2)}
	if p.events[0] != want {
		t.Errorf("got  %+v\nwant %+v", p.events[0], want)
	}
	e := p.events[1]
	if e.Track != 2 || e.Outcome != NoMatch || e.Subject != "" || e.Score != 0.2 || e.Frames != 4 || e.Last.Sub(e.First) != 300*time.Millisecond {
		t.Errorf("stranger: %+v", e)
	}
}

func TestEventsOfOneVisitShareTheTrack(t *testing.T) {
	p := newPlayer().frames(10, stranger(1, 0)).frames(10, known(1, 0))
	if len(p.events) != 2 || p.events[0].Track != p.events[1].Track {
		t.Errorf("%+v", p.events)
	}
}

func TestTracksAreBounded(t *testing.T) {
	p := newPlayer()
	for i := range 2 * MaxTracks {
		p.frames(1, known(i%dim, float32(1000*i)))
		if p.tracker.Tracks() > MaxTracks {
			t.Fatalf("%d tracks", p.tracker.Tracks())
		}
	}
	if p.tracker.Tracks() != MaxTracks {
		t.Errorf("%d tracks, want %d", p.tracker.Tracks(), MaxTracks)
	}
	latest := 2*MaxTracks - 1 // is still followed, while the first made room
	p.frames(1, known(latest%dim, float32(1000*latest)))
	if len(p.said) != 1 {
		t.Errorf("said %q, want the match of the latest", p.said)
	}
	crowd := make([]Observation, 3*MaxTracks) // more faces in a frame than can be followed
	for i := range crowd {
		crowd[i] = known(i%dim, float32(1000*i))
	}
	if p.frames(3, crowd...); p.tracker.Tracks() != MaxTracks {
		t.Errorf("%d tracks of a crowd", p.tracker.Tracks())
	}
}

// held reports whether any template is in the tracker's memory.
func held(t *Tracker) bool {
	for i := range t.tracks[:MaxTracks] {
		tr := &t.tracks[:MaxTracks][i]
		for _, v := range append(append([]int8{}, tr.latest.values...), tr.best.values...) {
			if v != 0 {
				return true
			}
		}
	}
	return false
}

func TestTemplatesAreWiped(t *testing.T) {
	p := newPlayer().frames(3, known(1, 0), known(2, 300), stranger(3, 600))
	if !held(p.tracker) {
		t.Fatal("nothing is held, so the test shows nothing")
	}
	if p.tracker.Reset(); held(p.tracker) || p.tracker.Tracks() != 0 {
		t.Error("Reset leaves templates")
	}
	p.frames(3, known(1, 0), known(2, 300), stranger(3, 600)).pass(time.Minute).frames(1)
	if held(p.tracker) || p.tracker.Tracks() != 0 {
		t.Error("tracks that ended leave templates")
	}
}

func TestTrackerAllocatesNothing(t *testing.T) {
	tracker := NewTracker(trackPolicy(), dim)
	frame := []Observation{known(1, 0), stranger(2, 300), bad(known(3, 600))}
	events := make([]Event, 0, len(frame))
	now := noon
	if n := testing.AllocsPerRun(200, func() {
		now = now.Add(100 * time.Millisecond)
		events = tracker.Observe(now, frame, events[:0])
		if now.Second()%7 == 0 { // people come and go
			now = now.Add(5 * time.Second)
		}
	}); n != 0 {
		t.Errorf("%v allocations per frame", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	tracker := NewTracker(trackPolicy(), 128)
	values, scale := make([]int8, 128), float32(1.0/127)
	values[0] = 127
	frame := []Observation{{Box: [4]float32{0, 0, 100, 100}, Values: values, Scale: scale, Quality: 1, Subject: "p", Score: 0.9}}
	events := make([]Event, 0, 1)
	now := noon
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Millisecond)
		events = tracker.Observe(now, frame, events[:0])
	}
}
