package core

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vigil/daemon/decide"
	"vigil/infer/sched"
	"vigil/sensors"
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

// withPicture finds the faces or the finger of a picture and calls fn in the turn that it got. The place in the queue is
// taken first, so that nothing is decoded for a request that is refused; it is decoded on the caller's goroutine, while the
// place moves up. Errors beside fn's: ErrBusy, those of the picture and the pipeline, the context's.
func (u *Unit) withPicture(ctx context.Context, pic Picture, fn func(t *turn) error) error {
	if err := pic.check(); err != nil {
		return err
	}
	if _, err := u.ready(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	deadline := u.deadline(ctx)
	place, err := u.queue.Reserve(sched.ClassOf(ctx), deadline)
	if err != nil {
		return busy(err)
	}
	defer place.Cancel()
	f, done, err := u.app.decode(ctx, deadline, &pic)
	if errors.Is(err, context.DeadlineExceeded) {
		return busy(place.Expire())
	}
	if err != nil {
		return err
	}
	defer done()
	t := &turn{ctx: ctx, frame: f, dpi: pic.DPI, then: fn}
	if err := place.Run(ctx, t); err != nil {
		return busy(err)
	}
	return t.err
}

// decode decodes a picture of the API. No more than the engines can soon use are decoded at a time (see decodeAhead), because
// each may have 150 MB; the others wait. done gives the frame back.
func (a *Appliance) decode(ctx context.Context, deadline time.Time, pic *Picture) (f *sensors.Frame, done func(), err error) {
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	select {
	case a.decoders <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	if f, err = pic.frame(ctx, a.pictures); err != nil {
		<-a.decoders
		return nil, nil, err
	}
	return f, func() { f.Release(); <-a.decoders }, nil
}

// decodeAhead is how many pictures are decoded at a time for so many workers: what runs, and as many ready for them.
func decodeAhead(workers int) int { return 2 * workers }

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
	err = u.withPicture(ctx, pic, func(t *turn) error {
		p, err := u.main(t.seen)
		if err != nil {
			return err
		}
		d.Threshold, d.Model = t.gen.policy.VerifyThreshold, t.gen.id
		if !t.admit(p, &d) {
			return nil
		}
		f, ok := t.verify(subject, p)
		if !ok {
			return fmt.Errorf("subject %s has no template of model %s: %w: enrol the person again", subject, t.gen.id, ErrNotEnrolled)
		}
		d.Score, d.Threshold, d.Model = f.score, f.by.policy.VerifyThreshold, f.by.id
		d.Outcome = decide.NoMatch
		if f.score >= d.Threshold {
			d.Outcome = decide.Match
		}
		return nil
	})
	if err != nil {
		return d, err
	}
	a.askSecond(ctx, &d)
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
func (t *turn) admit(p *presentation, d *Decision) bool {
	d.Quality, d.Assessment = p.quality, p.assessment()
	d.noteLiveness(p, t.gen.policy.LivenessThreshold)
	outcome, ok := t.gen.policy.Admit(p.presented())
	if !ok {
		d.Outcome = outcome
	}
	return ok
}

// Identify searches every face of a picture, or its finger, in the gallery (1:N), one decision each, the largest first.
// The decisions are durable when it returns.
func (u *Unit) Identify(ctx context.Context, pic Picture) ([]Decision, error) {
	var list []Decision
	err := u.withPicture(ctx, pic, func(t *turn) error {
		if len(t.seen) == 0 {
			return u.absent()
		}
		for i := range t.seen {
			list = append(list, t.judge(&t.seen[i]))
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
func (t *turn) judge(p *presentation) Decision {
	d := Decision{Operation: decide.Identify, Threshold: t.gen.policy.IdentifyThreshold, Model: t.gen.id}
	if !t.admit(p, &d) {
		return d
	}
	d.Outcome = decide.NoMatch
	f := t.search(p)
	d.Score, d.Threshold, d.Model = f.score, f.by.policy.IdentifyThreshold, f.by.id
	if f.score >= d.Threshold {
		d.Outcome, d.Subject = decide.Match, f.subject
	}
	return d
}
