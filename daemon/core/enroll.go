package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"vigil/daemon/decide"
	"vigil/store"
)

// MaxSamples bounds the pictures of one enrolment.
const MaxSamples = 16

// sample is one accepted template of an enrolment.
type sample struct {
	values  []int8
	scale   float32
	quality float32
	gen     *generation // whose it is
	old     *sample     // of the same picture, by the elder of gen; nil if there is none
	crop    *rawCrop    // nil unless the policy keeps it
	seen    *Assessment
}

func (s *sample) wipe() {
	clear(s.values)
	if s.old != nil {
		clear(s.old.values)
	}
	if s.crop != nil {
		s.crop.wipe()
	}
}

// Refused says why a picture of an enrolment was not taken.
type Refused struct {
	Sample     int         `json:"sample"` // from 1
	Reason     string      `json:"reason"`
	Assessment *Assessment `json:"assessment,omitempty"` // where one face or finger was looked at
}

// Taken is a picture of an enrolment that was taken.
type Taken struct {
	Sample     int         `json:"sample"` // from 1
	Quality    float32     `json:"quality"`
	Assessment *Assessment `json:"assessment,omitempty"`
}

// Enrolled is the answer to an enrolment.
type Enrolled struct {
	Subject string    `json:"subject"`
	Samples int       `json:"samples"` // taken
	Refused []Refused `json:"refused,omitempty"`
	Taken   []Taken   `json:"taken,omitempty"` // of pictures that were sent
}

// Person is who is enrolled: a new one by name, or one who is enrolled already, by id.
type Person struct {
	Name    string
	Subject string // not empty: the templates are added to this person, and Name is not used
}

// checkPerson checks the name of a new person, or that a known one is there. Errors: store.ErrInvalid, store.ErrNotFound.
func (a *Appliance) checkPerson(ctx context.Context, who Person) error {
	if who.Subject == "" {
		return checkName(who.Name)
	}
	return a.store.View(ctx, func(tx *store.Tx) error {
		_, err := tx.Subject(who.Subject)
		return err
	})
}

// Enroll is Unit.Enroll of a new person by face.
func (a *Appliance) Enroll(ctx context.Context, name string, pictures [][]byte) (Enrolled, error) {
	list := make([]Picture, len(pictures))
	for i, data := range pictures {
		list[i].Data = data
	}
	return a.face.Enroll(ctx, Person{Name: name}, list)
}

// Enroll takes a person into the gallery from several pictures. Pictures without one clear face of good quality are
// refused one by one (Enrolled.Refused says why, beside an error too); the rest must be enough, show one person, and that
// person must not be enrolled yet (as somebody else). Pictures that are judged presentation attacks are one decision of their own, audited. When it returns without error, the person is durable and audited. Errors:
// ErrSamples, with ErrPresentationAttack where those made the samples too few, ErrDuplicate, ErrBusy, ErrNoModel,
// store.ErrFull.
func (u *Unit) Enroll(ctx context.Context, who Person, pictures []Picture) (Enrolled, error) {
	var e Enrolled
	if err := u.app.checkPerson(ctx, who); err != nil {
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
	for i, pic := range pictures {
		err := u.withPicture(ctx, pic, func(t *turn) error {
			s, err := t.takeSample(&attacks)
			if err == nil {
				samples = append(samples, s)
			}
			return err
		})
		if errors.Is(err, ErrBusy) || u.now() == nil || ctx.Err() != nil {
			return e, err
		}
		if err != nil {
			e.Refused = append(e.Refused, Refused{Sample: i + 1, Reason: err.Error(), Assessment: assessmentOf(err)})
			continue
		}
		s := &samples[len(samples)-1]
		e.Taken = append(e.Taken, Taken{Sample: i + 1, Quality: s.quality, Assessment: s.seen})
	}
	if err := u.recordAttacks(ctx, "", &attacks); err != nil {
		return e, err
	}
	return u.finishEnrollment(ctx, who, samples, e, &attacks)
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
	gen     *generation
}

// recordAttacks makes one decision of the attacks of an enrolment, if there were any.
func (u *Unit) recordAttacks(ctx context.Context, sensor string, c *attackCount) error {
	if c.n == 0 {
		return nil
	}
	return u.commit(ctx, &Decision{
		Operation: decide.Enroll, Outcome: decide.PresentationAttack, Threshold: c.gen.policy.VerifyThreshold, Quality: c.quality,
		Liveness: &Liveness{Score: c.least, Threshold: c.gen.policy.LivenessThreshold}, Sensor: sensor, Frames: c.n, Model: c.gen.id,
	})
}

// takeSample copies the template of the main face if it is good enough and no attack.
func (t *turn) takeSample(attacks *attackCount) (sample, error) {
	f, err := t.unit.main(t.seen)
	if err != nil {
		return sample{}, err
	}
	policy := &t.gen.policy
	if outcome, _ := policy.Admit(f.presented()); outcome == decide.PresentationAttack {
		if attacks.n == 0 || f.liveness < attacks.least {
			attacks.least, attacks.quality = f.liveness, f.quality
		}
		attacks.n++
		attacks.gen = t.gen
		return sample{}, fmt.Errorf("%w: liveness %.2f, needed %.2f: the person must be there, not a picture of it",
			ErrPresentationAttack, f.liveness, policy.LivenessThreshold)
	}
	if f.quality < policy.EnrollQuality {
		err := fmt.Errorf("%w: %.2f, enrolment needs %.2f: %s", ErrQuality, f.quality, policy.EnrollQuality, f.advice)
		return sample{}, &assessedError{err, f.assessment()}
	}
	s := t.sample(f)
	s.seen = f.assessment()
	if old := counterpart(t.elder, f); old != nil && len(old.values) > 0 {
		s.old = &sample{values: slices.Clone(old.values), scale: old.scale, quality: old.quality, gen: t.gen.elder}
	}
	s.crop = t.crop(f)
	return s, nil
}

// sample is a copy of what a presentation gives.
func (t *turn) sample(p *presentation) sample {
	return sample{values: slices.Clone(p.values), scale: p.scale, quality: p.quality, gen: t.gen}
}

// finishEnrollment checks the samples against each other and the gallery and stores them.
func (u *Unit) finishEnrollment(ctx context.Context, who Person, samples []sample, e Enrolled, attacks *attackCount) (Enrolled, error) {
	a := u.app
	g, err := u.ready()
	if err != nil {
		return e, err
	}
	e.Samples = len(samples)
	if len(samples) < g.policy.EnrollSamples && attacks.n > 0 {
		return e, fmt.Errorf("%w: %d good samples, %d are needed; %d presentations were %w", ErrSamples, len(samples), g.policy.EnrollSamples, attacks.n, ErrPresentationAttack)
	}
	if len(samples) < g.policy.EnrollSamples {
		return e, fmt.Errorf("%w: %d good samples, %d are needed", ErrSamples, len(samples), g.policy.EnrollSamples)
	}
	if err := g.onePerson(samples); err != nil {
		return e, err
	}
	a.enrolling.Lock() // two enrolments of one person at once must not both find the gallery empty
	defer a.enrolling.Unlock()
	if now := u.now(); now == nil || now.id != g.id {
		return e, errExchanged
	}
	if f := enrolledAs(samples); f.subject != "" && f.subject != who.Subject {
		err := a.audit(ctx, "enroll.duplicate", f.subject, map[string]any{"score": f.score, "threshold": f.by.policy.DuplicateThreshold}, true)
		return e, errors.Join(fmt.Errorf("%w, as subject %s (score %.2f)", ErrDuplicate, f.subject, f.score), err)
	}
	if e.Subject, err = u.storeSubject(ctx, who, samples); err != nil {
		return e, err
	}
	a.log.Info("enrolled", "subject", e.Subject, "modality", u.kind, "samples", len(samples), "refused", len(e.Refused))
	return e, nil
}

// onePerson checks that all samples are of one person, and of this bundle.
func (g *generation) onePerson(samples []sample) error {
	score, done := g.scorer()
	defer done()
	for i := range samples {
		if samples[i].gen.id != g.id {
			return errExchanged
		}
		for j := range i {
			if s := score(&samples[i], &samples[j]); s < g.policy.VerifyThreshold {
				return fmt.Errorf("%w: samples %d and %d (of those taken) do not show the same person (score %.2f, needed %.2f)",
					ErrSamples, j+1, i+1, s, g.policy.VerifyThreshold)
			}
		}
	}
	return nil
}

// enrolledAs searches every sample in the galleries with the threshold for duplicates.
func enrolledAs(samples []sample) (best find) {
	match := make([]store.Match, 0, 1)
	search := func(s *sample) {
		match = s.gen.gallery.Identify(store.Probe{Values: s.values, Scale: s.scale}, match[:0])
		if len(match) > 0 && match[0].Score >= s.gen.policy.DuplicateThreshold && match[0].Score > best.score {
			best = find{match[0].SubjectID, match[0].Score, s.gen}
		}
	}
	for i := range samples {
		search(&samples[i])
		if samples[i].old != nil {
			search(samples[i].old)
		}
	}
	return best
}

// storeSubject stores a new person, or adds the templates to one who is there, and returns the id.
func (u *Unit) storeSubject(ctx context.Context, who Person, samples []sample) (id string, err error) {
	a := u.app
	templates := make([]store.Template, len(samples))
	worst := samples[0].quality
	for i, s := range samples {
		templates[i] = store.Template{ModelID: s.gen.id, Values: s.values, Scale: s.scale, Quality: s.quality}
		worst = min(worst, s.quality)
	}
	if id = who.Subject; id == "" {
		id = store.NewSubjectID()
	}
	crops, err := encodeCrops(samples)
	defer func() {
		for _, c := range crops {
			clear(c)
		}
	}()
	if err != nil {
		return "", err
	}
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		var err error
		if who.Subject != "" {
			err = tx.AddTemplates(id, len(samples), templates)
		} else {
			err = tx.PutSubject(store.Subject{ID: id, Name: who.Name, Created: a.now().UTC(), Samples: len(samples)}, templates)
		}
		if err != nil {
			return err
		}
		if len(crops) > 0 {
			if _, err := tx.AddCrops(id, crops); err != nil {
				return err
			}
		}
		_, err = tx.AppendAudit(store.AuditEvent{
			Time: a.now().UTC(), Type: "enroll", Subject: id,
			Detail: noteCaller(ctx, map[string]any{"samples": len(samples), "least_quality": worst, "modality": u.kind, "model": samples[0].gen.id}),
		})
		return err
	})
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrInvalid) {
		return "", fmt.Errorf("nobody was enrolled: %w", err)
	}
	if err != nil {
		a.health.degrade("store", err)
		return "", fmt.Errorf("nobody was enrolled: %w", err)
	}
	a.health.recover("store")
	a.serving.news.tell()
	return id, nil
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
	err := a.store.Update(ctx, func(tx *store.Tx) error { return deleteSubject(tx, id, callerOf(ctx), a.now()) })
	if err == nil {
		a.locksMu.Lock()
		a.locks.Forget(id)
		a.locksMu.Unlock()
		a.serving.news.tell()
		a.log.Info("deleted", "subject", id)
		a.eraseFactors(ctx, id)
	}
	return err
}
