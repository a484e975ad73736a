package core

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"vigil/daemon/decide"
	"vigil/infer/face"
	"vigil/kernels"
	"vigil/store"
)

// MaxSamples bounds the pictures of one enrolment.
const MaxSamples = 16

// sample is one accepted template of an enrolment.
type sample struct {
	values  []int8
	scale   float32
	quality float32
}

func (s *sample) wipe() { clear(s.values) }

// Refused says why a picture of an enrolment was not taken.
type Refused struct {
	Sample int    `json:"sample"` // from 1
	Reason string `json:"reason"`
}

// Enrolled is the answer to an enrolment.
type Enrolled struct {
	Subject string    `json:"subject"`
	Samples int       `json:"samples"` // taken
	Refused []Refused `json:"refused,omitempty"`
}

// Enroll takes a person into the gallery from several pictures. Pictures without one clear face of good quality are
// refused one by one (Enrolled.Refused says why, beside an error too); the rest must be enough, show one person, and that
// person must not be enrolled yet. Pictures that are judged presentation attacks are one decision of their own, audited. When it returns without error, the person is durable and audited. Errors:
// ErrSamples, with ErrPresentationAttack where those made the samples too few, ErrDuplicate, ErrBusy, ErrNoModel,
// store.ErrFull.
func (a *Appliance) Enroll(ctx context.Context, name string, pictures [][]byte) (Enrolled, error) {
	var e Enrolled
	if err := checkName(name); err != nil {
		return e, err
	}
	if len(pictures) > MaxSamples {
		return e, fmt.Errorf("%w: %d pictures, at most %d", ErrSamples, len(pictures), MaxSamples)
	}
	var samples []sample
	defer func() {
		for i := range samples {
			samples[i].wipe()
		}
	}()
	var attacks attackCount
	for i, data := range pictures {
		err := a.withPicture(ctx, data, func(faces []face.Face) error {
			s, err := a.takeSample(faces, &attacks)
			if err == nil {
				samples = append(samples, s)
			}
			return err
		})
		if errors.Is(err, ErrBusy) || a.pipe == nil || ctx.Err() != nil {
			return e, err
		}
		if err != nil {
			e.Refused = append(e.Refused, Refused{Sample: i + 1, Reason: err.Error()})
		}
	}
	if err := a.recordAttacks(ctx, "", &attacks); err != nil {
		return e, err
	}
	return a.finishEnrollment(ctx, name, samples, e, &attacks)
}

func checkName(name string) error {
	if strings.TrimSpace(name) != name || name == "" || len(name) > 200 || strings.ContainsFunc(name, unicode.IsControl) {
		return fmt.Errorf("%w: a name has 1 to 200 bytes, no spaces at its ends and no control characters", store.ErrInvalid)
	}
	return nil
}

// attackCount is how often an enrolment was shown what is no living person.
type attackCount struct {
	n       int
	least   float32 // liveness
	quality float32 // of that face
}

// recordAttacks makes one decision of the attacks of an enrolment, if there were any.
func (a *Appliance) recordAttacks(ctx context.Context, sensor string, c *attackCount) error {
	if c.n == 0 {
		return nil
	}
	return a.commit(ctx, &Decision{
		Operation: decide.Enroll, Outcome: decide.PresentationAttack, Threshold: a.policy.VerifyThreshold, Quality: c.quality,
		Liveness: &Liveness{Score: c.least, Threshold: a.policy.LivenessThreshold}, Sensor: sensor, Frames: c.n,
	})
}

// takeSample copies the template of the main face if it is good enough and no attack. The caller holds the engine.
func (a *Appliance) takeSample(faces []face.Face, attacks *attackCount) (sample, error) {
	f, err := mainFace(faces)
	if err != nil {
		return sample{}, err
	}
	if outcome, _ := a.policy.Admit(presented(f)); outcome == decide.PresentationAttack {
		if attacks.n == 0 || f.Liveness < attacks.least {
			attacks.least, attacks.quality = f.Liveness, f.Quality.Unified
		}
		attacks.n++
		return sample{}, fmt.Errorf("%w: liveness %.2f, needed %.2f: the person must be there, not a picture of it",
			ErrPresentationAttack, f.Liveness, a.policy.LivenessThreshold)
	}
	if f.Quality.Unified < a.policy.EnrollQuality {
		return sample{}, fmt.Errorf("%w: %.2f, enrolment needs %.2f: %s", ErrQuality, f.Quality.Unified, a.policy.EnrollQuality, advice(&f.Quality))
	}
	return sample{values: append([]int8(nil), f.Values...), scale: f.Scale, quality: f.Quality.Unified}, nil
}

// advice names the worst component of a quality in words for the person in front of the camera.
func advice(q *face.Quality) string {
	switch q.Unified {
	case q.Size:
		return "come closer"
	case q.Pose:
		return "look straight into the camera"
	case q.Exposure:
		return "more even light is needed"
	case q.Contrast:
		return "the picture has too little contrast"
	}
	return "hold still, the picture is blurred"
}

// finishEnrollment checks the samples against each other and the gallery and stores them.
func (a *Appliance) finishEnrollment(ctx context.Context, name string, samples []sample, e Enrolled, attacks *attackCount) (Enrolled, error) {
	if a.pipe == nil {
		return e, a.unready
	}
	e.Samples = len(samples)
	if len(samples) < a.policy.EnrollSamples && attacks.n > 0 {
		return e, fmt.Errorf("%w: %d good samples, %d are needed; %d presentations were %w", ErrSamples, len(samples), a.policy.EnrollSamples, attacks.n, ErrPresentationAttack)
	}
	if len(samples) < a.policy.EnrollSamples {
		return e, fmt.Errorf("%w: %d good samples, %d are needed", ErrSamples, len(samples), a.policy.EnrollSamples)
	}
	if err := a.onePerson(samples); err != nil {
		return e, err
	}
	a.enrolling.Lock() // two enrolments of one person at once must not both find the gallery empty
	defer a.enrolling.Unlock()
	if id, score := a.enrolledAs(samples); id != "" {
		err := a.audit(ctx, "enroll.duplicate", id, map[string]any{"score": score, "threshold": a.policy.DuplicateThreshold}, true)
		return e, errors.Join(fmt.Errorf("%w, as subject %s (score %.2f)", ErrDuplicate, id, score), err)
	}
	sub := store.Subject{ID: store.NewSubjectID(), Name: name, Created: a.now().UTC(), Samples: len(samples)}
	if err := a.storeSubject(ctx, sub, samples); err != nil {
		return e, err
	}
	e.Subject = sub.ID
	a.log.Info("enrolled", "subject", sub.ID, "samples", len(samples), "refused", len(e.Refused))
	return e, nil
}

// onePerson checks that all samples are of one person.
func (a *Appliance) onePerson(samples []sample) error {
	for i := range samples {
		for j := range i {
			var dot [1]int32
			kernels.DotRows(dot[:], samples[i].values, len(samples[i].values), samples[j].values)
			if s := float32(dot[0]) * samples[i].scale * samples[j].scale; s < a.policy.VerifyThreshold {
				return fmt.Errorf("%w: samples %d and %d (of those taken) do not show the same person (score %.2f, needed %.2f)",
					ErrSamples, j+1, i+1, s, a.policy.VerifyThreshold)
			}
		}
	}
	return nil
}

// enrolledAs searches every sample in the gallery with the threshold for duplicates.
func (a *Appliance) enrolledAs(samples []sample) (subject string, score float32) {
	match := make([]store.Match, 0, 1)
	for i := range samples {
		match = a.gallery.Identify(store.Probe{Values: samples[i].values, Scale: samples[i].scale}, match[:0])
		if len(match) > 0 && match[0].Score >= a.policy.DuplicateThreshold && match[0].Score > score {
			subject, score = match[0].SubjectID, match[0].Score
		}
	}
	return subject, score
}

func (a *Appliance) storeSubject(ctx context.Context, sub store.Subject, samples []sample) error {
	templates := make([]store.Template, len(samples))
	worst := samples[0].quality
	for i, s := range samples {
		templates[i] = store.Template{ModelID: a.pipe.ModelID(), Values: s.values, Scale: s.scale, Quality: s.quality}
		worst = min(worst, s.quality)
	}
	err := a.store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.PutSubject(sub, templates); err != nil {
			return err
		}
		_, err := tx.AppendAudit(store.AuditEvent{
			Time: a.now().UTC(), Type: "enroll", Subject: sub.ID,
			Detail: map[string]any{"samples": len(samples), "least_quality": worst, "model": a.pipe.ModelID()},
		})
		return err
	})
	if err != nil {
		a.health.degrade("store", err)
		return fmt.Errorf("nobody was enrolled: %w", err)
	}
	a.health.recover("store")
	return nil
}

// Subjects lists enrolled people in the order of their ids, from behind after.
func (a *Appliance) Subjects(ctx context.Context, after string, limit int) (list []store.Subject, err error) {
	err = a.store.View(ctx, func(tx *store.Tx) error {
		list, err = tx.Subjects(after, limit)
		return err
	})
	return list, err
}

// DeleteSubject erases a person. Errors: store.ErrNotFound.
func (a *Appliance) DeleteSubject(ctx context.Context, id string) error {
	err := a.store.Update(ctx, func(tx *store.Tx) error { return deleteSubject(tx, id, "local", a.now()) })
	if err == nil {
		a.locksMu.Lock()
		a.locks.Forget(id)
		a.locksMu.Unlock()
		a.log.Info("deleted", "subject", id)
	}
	return err
}
