package core

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"vigil/store"
)

// maxAttempts bounds the pictures that one enrolment looks at, good and bad.
const maxAttempts = 4 * MaxSamples

// Enrollment takes a person into the gallery picture by picture, and says after each what is wrong with it and how many are
// still wanted. Nothing is stored before Finish. It is safe for concurrent use; one picture is looked at at a time. Its owner
// calls Close, which wipes the samples.
type Enrollment struct {
	unit *Unit
	who  Person
	want int // samples

	mu       sync.Mutex
	closed   bool
	samples  []sample // of one bundle
	attempts int
	attacks  attackCount
}

// Sampled is what became of one picture of an Enrollment.
type Sampled struct {
	Accepted bool    `json:"accepted"`
	Advice   string  `json:"advice,omitempty"`   // why not, in words for the person who is enrolled
	Guidance string  `json:"guidance,omitempty"` // what would help, as a code: "come_closer", "press_harder"
	Quality  float32 `json:"quality,omitempty"`  // 0..1, of an accepted one
	Samples  int     `json:"samples"`            // accepted so far
	Wanted   int     `json:"wanted"`             // more of them before the enrolment can be finished
	// Assessment is of the face or finger of the picture, where one was looked at.
	Assessment *Assessment `json:"assessment,omitempty"`
}

// BeginEnrollment begins the enrolment of a new or a known person by face or finger; see Unit for the modality. Errors:
// store.ErrInvalid, store.ErrNotFound, ErrModality, and why the models are not ready.
func (a *Appliance) BeginEnrollment(ctx context.Context, who Person, kind string) (*Enrollment, error) {
	u, err := a.Unit(kind)
	if err != nil {
		return nil, err
	}
	if err := a.checkPerson(ctx, who); err != nil {
		return nil, err
	}
	g, err := u.ready()
	if err != nil {
		return nil, err
	}
	return &Enrollment{unit: u, who: who, want: g.policy.EnrollSamples}, nil
}

// Modality is what the pictures must show.
func (e *Enrollment) Modality() string { return e.unit.kind }

// Wanted is how many more samples are needed.
func (e *Enrollment) Wanted() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.wanted()
}

func (e *Enrollment) wanted() int { return max(0, e.want-len(e.samples)) }

// errEnded: the enrolment was finished or given up.
var errEnded = fmt.Errorf("%w: the enrolment is over", store.ErrNotFound)

// Add looks at one picture, which is borrowed until it returns. A picture that shows no one clear face or finger of good
// quality, a presentation attack, or somebody else than the earlier ones is not accepted, which is no error. Errors: those
// of the picture, ErrBusy, ErrSamples when there are enough pictures, the context's.
func (e *Enrollment) Add(ctx context.Context, pic Picture) (Sampled, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	u := e.unit
	switch {
	case e.closed:
		return Sampled{}, errEnded
	case len(e.samples) >= MaxSamples:
		return Sampled{}, fmt.Errorf("%w: there are %d samples, and no more are taken: finish the enrolment", ErrSamples, len(e.samples))
	case e.attempts >= maxAttempts:
		return Sampled{}, fmt.Errorf("%w: %d pictures were looked at, and no more are: begin again", ErrSamples, e.attempts)
	}
	var quality float32
	var seen *Assessment
	err := u.withPicture(ctx, pic, func(t *turn) error {
		e.attempts++
		s, err := t.takeSample(&e.attacks)
		if err == nil {
			quality, seen = s.quality, s.seen
			err = e.keep(s)
		}
		return err
	})
	if seen == nil {
		seen = assessmentOf(err)
	}
	done := Sampled{Assessment: seen, Accepted: err == nil, Samples: len(e.samples), Wanted: e.wanted()}
	if err == nil {
		done.Quality = quality
		return done, nil
	}
	for _, about := range []error{ErrNoFace, ErrNoFinger, ErrSeveralFaces, ErrQuality, ErrPresentationAttack, errStranger} {
		if errors.Is(err, about) {
			done.Advice = err.Error()
			if seen != nil {
				done.Guidance = seen.Guidance
			}
			return done, nil
		}
	}
	return done, err
}

var errStranger = errors.New("this is not the person of the earlier pictures")

// keep adds a sample if it shows the person of the others.
func (e *Enrollment) keep(s sample) error {
	if len(e.samples) > 0 && e.samples[0].gen.id != s.gen.id { // exchanged meanwhile: what the other bundle made is of no use
		e.wipe()
	}
	score, done := s.gen.scorer()
	defer done()
	for i := range e.samples {
		if v, least := score(&e.samples[i], &s), s.gen.policy.VerifyThreshold; v < least {
			s.wipe()
			return fmt.Errorf("%w (score %.2f, needed %.2f)", errStranger, v, least)
		}
	}
	e.samples = append(e.samples, s)
	return nil
}

// Finish enrols the person. After success the enrolment is over; after an error more pictures may be added. Errors: those of
// Unit.Enroll.
func (e *Enrollment) Finish(ctx context.Context) (Enrolled, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return Enrolled{}, errEnded
	}
	if err := e.unit.recordAttacks(ctx, "", &e.attacks); err != nil {
		return Enrolled{}, err
	}
	done, err := e.unit.finishEnrollment(ctx, e.who, e.samples, Enrolled{}, &e.attacks)
	e.attacks = attackCount{} // recorded
	if err == nil {
		e.end()
	}
	return done, err
}

// Close gives the enrolment up and wipes the samples. It waits for a picture that is being looked at, and may be called
// twice.
func (e *Enrollment) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.end()
}

func (e *Enrollment) end() {
	e.closed = true
	e.wipe()
}

func (e *Enrollment) wipe() {
	for i := range e.samples {
		e.samples[i].wipe()
	}
	e.samples = nil
}
