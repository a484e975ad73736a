package core

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vigil/daemon/decide"
	"vigil/infer/face"
	"vigil/sensors"
	"vigil/sensors/picture"
	"vigil/store"
)

// dominance is how much larger (in area) the main face of a picture must be than the next one.
const dominance = 2

// withPicture decodes a picture, finds its faces and calls fn with them, the largest first. The faces are gone when it
// returns.
func (a *Appliance) withPicture(ctx context.Context, data []byte, fn func(faces []face.Face) error) error {
	if err := picture.Check(data); err != nil {
		return err
	}
	if err := a.acquire(ctx); err != nil {
		return err
	}
	defer a.release()
	f, err := picture.Decode(ctx, a.pictures, data)
	if err != nil {
		return err
	}
	defer f.Release()
	if err := a.process(ctx, f); err != nil {
		return err
	}
	return fn(a.result.Faces)
}

// process runs the pipeline and keeps its timings. The caller holds the engine.
func (a *Appliance) process(ctx context.Context, f *sensors.Frame) error {
	if err := a.pipe.Process(ctx, f, a.result); err != nil {
		if !errors.Is(err, face.ErrFormat) && ctx.Err() == nil {
			a.health.degrade("model", err)
		}
		return err
	}
	for _, t := range a.result.Timings {
		if t.Deadline == 0 {
			continue // a stage that the bundle lacks
		}
		a.stats.observe(t.Stage, t.Took)
		if t.Late() {
			a.stats.late(t.Stage)
		}
	}
	a.health.proved(proofPipeline)
	return nil
}

// mainFace returns the one face that is meant: the largest, if it is much larger than any other.
func mainFace(faces []face.Face) (*face.Face, error) {
	if len(faces) == 0 {
		return nil, ErrNoFace
	}
	area := func(f *face.Face) float32 { return f.Box[2] * f.Box[3] }
	if len(faces) > 1 && area(&faces[1])*dominance > area(&faces[0]) {
		return nil, fmt.Errorf("%w: %d of them, and none much larger than the next: send a picture of one person", ErrSeveralFaces, len(faces))
	}
	return &faces[0], nil
}

// search finds the best candidate of the gallery for a face. The caller holds the engine.
func (a *Appliance) search(f *face.Face) (subject string, score float32) {
	start := time.Now()
	a.matches = a.gallery.Identify(store.Probe{Values: f.Values, Scale: f.Scale}, a.matches[:0])
	a.stats.observe(StageMatch, time.Since(start))
	if len(a.matches) == 0 {
		return "", -1
	}
	return a.matches[0].SubjectID, a.matches[0].Score
}

// Verify compares the face of a picture with one enrolled person (1:1). The decision is durable when it returns. Errors:
// store.ErrNotFound, ErrNoFace, ErrSeveralFaces, those of the picture; a locked person, a poor face and a presentation
// attack are decisions, not errors.
func (a *Appliance) Verify(ctx context.Context, subject string, data []byte) (Decision, error) {
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
		return d, a.commit(ctx, &d)
	}
	err = a.withPicture(ctx, data, func(faces []face.Face) error {
		f, err := mainFace(faces)
		if err != nil {
			return err
		}
		d.Threshold = a.policy.VerifyThreshold
		if !a.admit(f, &d) {
			return nil
		}
		score, ok := a.gallery.Verify(subject, store.Probe{Values: f.Values, Scale: f.Scale})
		if !ok {
			return fmt.Errorf("subject %s has no template of model %s: %w: enrol the person again", subject, a.pipe.ModelID(), ErrNotEnrolled)
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
	return d, a.commit(ctx, &d)
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

// admit notes in a decision what is known of a face and says whether it may be compared; if not, the outcome is set.
func (a *Appliance) admit(f *face.Face, d *Decision) bool {
	d.Quality = f.Quality.Unified
	d.noteLiveness(f, a.policy.LivenessThreshold)
	outcome, ok := a.policy.Admit(presented(f))
	if !ok {
		d.Outcome = outcome
	}
	return ok
}

func presented(f *face.Face) decide.Presented {
	return decide.Presented{Quality: f.Quality.Unified, Liveness: f.Liveness, HasLiveness: f.HasLiveness}
}

// Identify searches every face of a picture in the gallery (1:N), one decision each, the largest face first. The
// decisions are durable when it returns.
func (a *Appliance) Identify(ctx context.Context, data []byte) ([]Decision, error) {
	var list []Decision
	err := a.withPicture(ctx, data, func(faces []face.Face) error {
		if len(faces) == 0 {
			return ErrNoFace
		}
		for i := range faces {
			list = append(list, a.judge(&faces[i]))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range list {
		if err := a.commit(ctx, &list[i]); err != nil {
			return list[:i], err
		}
	}
	return list, nil
}

// judge searches one face and decides on its own.
func (a *Appliance) judge(f *face.Face) Decision {
	d := Decision{Operation: decide.Identify, Threshold: a.policy.IdentifyThreshold}
	if !a.admit(f, &d) {
		return d
	}
	d.Outcome = decide.NoMatch
	subject, score := a.search(f)
	d.Score = score
	if score >= d.Threshold {
		d.Outcome, d.Subject = decide.Match, subject
	}
	return d
}
