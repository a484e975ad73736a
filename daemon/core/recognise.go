package core

import (
	"context"
	"fmt"
	"time"

	"vigil/daemon/decide"
	"vigil/store"
)

// dominance is how much larger (in area) the main face of a picture must be than the next one.
const dominance = 2

// Picture is one JPEG or PNG of the API, or raw pixels. Whoever takes one borrows its bytes until it returns.
type Picture struct {
	Data []byte
	DPI  float64 // of a fingerprint; 0 means 500
	Raw  *Raw    // what Data is where it is neither JPEG nor PNG
}

// withPicture decodes a picture, finds its faces or finger and calls fn with them, the largest first. They are gone when
// it returns.
func (u *Unit) withPicture(ctx context.Context, pic Picture, fn func(seen []presentation) error) error {
	if err := pic.check(); err != nil {
		return err
	}
	if err := u.acquire(ctx); err != nil {
		return err
	}
	defer u.release()
	f, err := pic.frame(ctx, u.app.pictures)
	if err != nil {
		return err
	}
	defer f.Release()
	seen, err := u.process(ctx, f, pic.DPI)
	if err != nil {
		return err
	}
	return fn(seen)
}

// absent is the error of a picture that shows nobody.
func (u *Unit) absent() error {
	if u.kind == Finger {
		return ErrNoFinger
	}
	return ErrNoFace
}

// main returns the one face or finger that is meant: the largest, if it is much larger than any other.
func (u *Unit) main(seen []presentation) (*presentation, error) {
	if len(seen) == 0 {
		return nil, u.absent()
	}
	area := func(p *presentation) float32 { return p.box[2] * p.box[3] }
	if len(seen) > 1 && area(&seen[1])*dominance > area(&seen[0]) {
		return nil, fmt.Errorf("%w: %d of them, and none much larger than the next: send a picture of one person", ErrSeveralFaces, len(seen))
	}
	return &seen[0], nil
}

// Verify is Unit.Verify for faces.
func (a *Appliance) Verify(ctx context.Context, subject string, data []byte) (Decision, error) {
	return a.face.Verify(ctx, subject, Picture{Data: data})
}

// Identify is Unit.Identify for faces.
func (a *Appliance) Identify(ctx context.Context, data []byte) ([]Decision, error) {
	return a.face.Identify(ctx, Picture{Data: data})
}

// Verify compares the face or finger of a picture with one enrolled person (1:1). The decision is durable when it returns.
// Errors: store.ErrNotFound, ErrNoFace, ErrNoFinger, ErrSeveralFaces, those of the picture; a locked person, a poor
// presentation and an attack are decisions, not errors.
func (u *Unit) Verify(ctx context.Context, subject string, pic Picture) (Decision, error) {
	a := u.app
	d := Decision{Operation: decide.Verify, Subject: subject}
	err := a.store.View(ctx, func(tx *store.Tx) error {
		_, err := tx.Subject(subject)
		return err
	})
	if err != nil {
		return d, err
	}
	if until := a.lockedUntil(subject); !until.IsZero() {
		d.Outcome, d.Until = decide.LockedOut, until
		return d, u.commit(ctx, &d)
	}
	err = u.withPicture(ctx, pic, func(seen []presentation) error {
		f, err := u.main(seen)
		if err != nil {
			return err
		}
		d.Threshold = u.policy.VerifyThreshold
		if !u.admit(f, &d) {
			return nil
		}
		score, ok := u.gallery.Verify(subject, store.Probe{Values: f.values, Scale: f.scale})
		if !ok {
			return fmt.Errorf("subject %s has no template of model %s: %w: enrol the person again", subject, u.rec.ModelID(), ErrNotEnrolled)
		}
		d.Score = score
		d.Outcome = decide.NoMatch
		if score >= d.Threshold {
			d.Outcome = decide.Match
		}
		return nil
	})
	if err != nil {
		return d, err
	}
	a.count(&d)
	return d, u.commit(ctx, &d)
}

func (a *Appliance) lockedUntil(subject string) time.Time {
	a.locksMu.Lock()
	defer a.locksMu.Unlock()
	return a.locks.Locked(subject, a.now())
}

// count tells the lockouts of an attempt.
func (a *Appliance) count(d *Decision) {
	a.locksMu.Lock()
	defer a.locksMu.Unlock()
	switch d.Outcome {
	case decide.Match:
		a.locks.Success(d.Subject)
	case decide.NoMatch, decide.PresentationAttack:
		if a.locks.Failure(d.Subject, a.now()) {
			d.Until = a.locks.Locked(d.Subject, a.now())
		}
	}
}

// admit notes in a decision what is known of a presentation and says whether it may be compared; if not, the outcome is
// set.
func (u *Unit) admit(p *presentation, d *Decision) bool {
	d.Quality = p.quality
	d.noteLiveness(p, u.policy.LivenessThreshold)
	outcome, ok := u.policy.Admit(p.presented())
	if !ok {
		d.Outcome = outcome
	}
	return ok
}

// Identify searches every face of a picture, or its finger, in the gallery (1:N), one decision each, the largest first.
// The decisions are durable when it returns.
func (u *Unit) Identify(ctx context.Context, pic Picture) ([]Decision, error) {
	var list []Decision
	err := u.withPicture(ctx, pic, func(seen []presentation) error {
		if len(seen) == 0 {
			return u.absent()
		}
		for i := range seen {
			list = append(list, u.judge(&seen[i]))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range list {
		if err := u.commit(ctx, &list[i]); err != nil {
			return list[:i], err
		}
	}
	return list, nil
}

// judge searches one presentation and decides on its own.
func (u *Unit) judge(p *presentation) Decision {
	d := Decision{Operation: decide.Identify, Threshold: u.policy.IdentifyThreshold}
	if !u.admit(p, &d) {
		return d
	}
	d.Outcome = decide.NoMatch
	subject, score := u.search(p)
	d.Score = score
	if score >= d.Threshold {
		d.Outcome, d.Subject = decide.Match, subject
	}
	return d
}
