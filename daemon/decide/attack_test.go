package decide

import (
	"testing"
	"time"
)

func TestAdmit(t *testing.T) {
	for _, c := range []struct {
		name string
		p    Policy
		f    Presented
		want Outcome
	}{
		{"no liveness asked for", Policy{}, Presented{Quality: 0.5, Liveness: 0, HasLiveness: true}, ""},
		{"alive", Policy{RequireLiveness: true, LivenessThreshold: 0.5}, Presented{0.5, 0.5, true}, ""},
		{"attack", Policy{RequireLiveness: true, LivenessThreshold: 0.5}, Presented{0.5, 0.49, true}, PresentationAttack},
		{"no score counts as an attack", Policy{RequireLiveness: true, LivenessThreshold: 0.5}, Presented{0.5, 0.9, false}, PresentationAttack},
		{"poor", Policy{ProbeQuality: 0.2}, Presented{0.19, 1, true}, LowQuality},
		{"poor before attack", Policy{ProbeQuality: 0.2, RequireLiveness: true, LivenessThreshold: 0.5}, Presented{0.19, 0, true}, LowQuality},
		{"at the floor", Policy{ProbeQuality: 0.2}, Presented{0.2, 0, false}, ""},
	} {
		got, ok := c.p.Admit(c.f)
		if got != c.want || ok != (c.want == "") {
			t.Errorf("%s: %q %v, want %q", c.name, got, ok, c.want)
		}
	}
}

// shown is one face of one frame in a test of attacks: at x, alive or not.
type shown struct {
	x     float32
	alive bool
	poor  bool
}

// TestAttacksAreOneEventAVisit plays frames 100 ms apart; "-" is a second without anybody.
func TestAttacksAreOneEventAVisit(t *testing.T) {
	live, fake, poor := &shown{alive: true}, &shown{}, &shown{poor: true}
	away, far := (*shown)(nil), &shown{x: 500}
	for _, c := range []struct {
		name   string
		frames []*shown
		want   []Outcome
	}{
		{"three in a row", []*shown{fake, fake, fake}, []Outcome{PresentationAttack}},
		{"it stays", []*shown{fake, fake, fake, fake, fake, fake, fake, fake}, []Outcome{PresentationAttack}},
		{"two are too few", []*shown{fake, fake}, nil},
		{"a living face begins anew", []*shown{fake, fake, live, fake, fake}, nil},
		{"poor frames are not judged", []*shown{fake, poor, poor, poor, fake, poor}, nil},
		{"it comes again", []*shown{fake, fake, fake, away, away, away, fake, fake, fake}, []Outcome{PresentationAttack, PresentationAttack}},
		{"elsewhere is another", []*shown{fake, far, fake, far}, nil},
		{"alive", []*shown{live, live}, []Outcome{Match}},
		{"alive for every other frame is no run", []*shown{live, fake, live, fake, live, fake}, nil},
		{"an attack far away breaks no run", []*shown{live, far, live}, []Outcome{Match}},
		{"a person after a picture", []*shown{fake, fake, fake, live, live}, []Outcome{PresentationAttack, Match}},
	} {
		p := &Policy{
			IdentifyThreshold: 0.5, ProbeQuality: 0.2, ConfirmFrames: 2, UnknownFrames: 3, EventHold: 2 * time.Second,
			RequireLiveness: true, LivenessThreshold: 0.5,
		}
		tr := NewTracker(p, 4)
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		var got []Outcome
		for _, f := range c.frames {
			if f == nil {
				now = now.Add(time.Second)
				continue
			}
			now = now.Add(100 * time.Millisecond)
			o := Observation{Box: [4]float32{f.x, 0, 100, 100}, Quality: 0.9, HasLiveness: true, Liveness: 0.1}
			if f.poor {
				o.Quality = 0.1
			}
			if f.alive {
				o.Liveness, o.Values, o.Scale, o.Subject, o.Score = 0.8, []int8{127, 0, 0, 0}, 1.0/127, "ann", 0.9
			}
			for _, e := range tr.Observe(now, []Observation{o}, nil) {
				got = append(got, e.Outcome)
				if want := map[Outcome]float32{PresentationAttack: 0.1, Match: 0.8}[e.Outcome]; e.Liveness != want || !e.HasLiveness {
					t.Errorf("%s: liveness %v in %+v", c.name, e.Liveness, e)
				}
				if e.Outcome == PresentationAttack && (e.Subject != "" || e.Frames != 3) {
					t.Errorf("%s: %+v", c.name, e)
				}
			}
		}
		if len(got) != len(c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s: %v, want %v", c.name, got, c.want)
			}
		}
	}
}

// TestAttacksAreBoundedAndFree: many attacks at once take no more room and no allocation.
func TestAttacksAreBoundedAndFree(t *testing.T) {
	p := &Policy{UnknownFrames: 3, EventHold: time.Second, RequireLiveness: true, LivenessThreshold: 0.5}
	tr := NewTracker(p, 4)
	faces := make([]Observation, 40)
	for i := range faces {
		faces[i] = Observation{Box: [4]float32{float32(i) * 200, 0, 100, 100}, Quality: 1}
	}
	now, events := time.Now(), make([]Event, 0, 64)
	if n := testing.AllocsPerRun(10, func() { now = now.Add(time.Millisecond); tr.Observe(now, faces, events[:0]) }); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
	if len(tr.attacks) != MaxTracks || cap(tr.attacks) != MaxTracks {
		t.Errorf("%d attacks are followed", len(tr.attacks))
	}
	tr.Observe(now.Add(time.Hour), nil, nil)
	if len(tr.attacks) != 0 {
		t.Errorf("%d attacks after an hour", len(tr.attacks))
	}
}
