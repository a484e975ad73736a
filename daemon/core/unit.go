package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"vigil/daemon/decide"
	"vigil/infer"
	"vigil/infer/chain"
	"vigil/infer/face"
	"vigil/infer/finger"
	"vigil/sensors"
	"vigil/store"
)

// Modalities of this version.
const (
	Face   = "face"
	Finger = "finger"
)

// Modalities in the order in which they are shown.
var Modalities = []string{Face, Finger}

// presentation is one face or finger of a frame, borrowed until the unit is released.
type presentation struct {
	box         [4]float32 // pixels of the frame; all of it for a finger
	values      []int8     // template; empty for an attack
	scale       float32
	quality     float32 // 0..1
	advice      string  // what would make it better, in words for the person at the sensor
	liveness    float32 // 0..1, if hasLiveness
	hasLiveness bool
	attack      bool
}

func (p *presentation) presented() decide.Presented {
	return decide.Presented{Quality: p.quality, Liveness: p.liveness, HasLiveness: p.hasLiveness}
}

// recogniser is the way of one modality from a frame to presentations. One goroutine uses it at a time.
type recogniser interface {
	ModelID() string
	Dimension() int
	Choices() []infer.Choice
	// see returns what a frame shows, the largest first, and how long each stage took. Both are valid until wipe.
	see(ctx context.Context, f *sensors.Frame, dpi float64) ([]presentation, []infer.Timing, error)
	// compare scores two samples of this recogniser, as the gallery does.
	compare(a, b *sample) float32
	// wipe overwrites the latest presentations.
	wipe()
	Close() error
}

// Unit is one modality at work: its models, its gallery, its thresholds, and the token that is the right to use them.
type Unit struct {
	app     *Appliance
	kind    string
	engine  chan struct{} // holds the token
	waiting atomic.Int32  // requests of the API that wait for it

	rec      recogniser
	runtime  infer.Runtime   // that rec runs on; the appliance's
	verdicts []chain.Verdict // on the runtimes, for this bundle
	unready  error           // why rec is nil
	builtIn  bool            // the bundle is the one in the binary
	gallery  *store.Gallery
	policy   decide.Policy
	matches  []store.Match
}

func newUnit(a *Appliance, kind string) *Unit {
	u := &Unit{app: a, kind: kind, engine: make(chan struct{}, 1), matches: make([]store.Match, 0, 1)}
	u.engine <- struct{}{}
	return u
}

// Unit returns the unit of a modality; "" means faces, or fingers on a device whose configuration switches faces off.
// Errors: ErrModality.
func (a *Appliance) Unit(kind string) (*Unit, error) {
	if kind == "" {
		kind = Face
		if a.cfg.Models.Face == off {
			kind = Finger
		}
	}
	for _, u := range a.units() {
		if u.kind == kind {
			return u, nil
		}
	}
	return nil, fmt.Errorf("%w: %q: there are %v", ErrModality, kind, Modalities)
}

func (a *Appliance) units() []*Unit { return []*Unit{a.face, a.finger} }

// Modality is the unit's kind.
func (u *Unit) Modality() string { return u.kind }

// use takes a recogniser into service with its gallery and thresholds; on an error the caller keeps it.
func (u *Unit) use(rec recogniser, m *infer.Manifest, policy decide.Policy, by func() store.Comparer) error {
	gallery := u.app.store.Gallery(m.ID)
	if err := gallery.Accepts(m.ID, rec.Dimension()); err != nil {
		return err
	}
	if by != nil {
		gallery.CompareBy(by)
	}
	u.rec, u.gallery, u.policy, u.unready = rec, gallery, policy, nil
	return nil
}

// acquire gets the unit for a request of the API, waiting in the bounded queue. Errors: ErrBusy, why the unit is not
// ready, the context's.
func (u *Unit) acquire(ctx context.Context) error {
	if int(u.waiting.Add(1)) > u.app.cfg.Policy.APIQueue {
		u.waiting.Add(-1)
		return ErrBusy
	}
	defer u.waiting.Add(-1)
	return u.acquireNow(ctx)
}

// acquireNow gets the unit, for sensors, of which there are few.
func (u *Unit) acquireNow(ctx context.Context) error {
	select {
	case <-u.engine:
	case <-ctx.Done():
		return ctx.Err()
	}
	if u.rec == nil {
		u.release()
		return u.unready
	}
	return nil
}

func (u *Unit) release() {
	if u.rec != nil {
		u.rec.wipe()
	}
	u.engine <- struct{}{}
}

// process runs the pipeline and keeps its timings. The caller holds the unit; the result is valid until it is released.
func (u *Unit) process(ctx context.Context, f *sensors.Frame, dpi float64) ([]presentation, error) {
	a := u.app
	seen, timings, err := u.rec.see(ctx, f, dpi)
	if err != nil {
		if !errors.Is(err, face.ErrFormat) && !errors.Is(err, finger.ErrFormat) && ctx.Err() == nil {
			a.health.degrade("model", err)
		}
		return nil, err
	}
	for i := range timings {
		t := &timings[i]
		if t.Deadline == 0 {
			continue // a stage that the bundle lacks
		}
		a.stats.observe(t.Stage, t.Took)
		if t.Late() {
			a.stats.late(t.Stage)
		}
	}
	a.health.proved(proofPipeline)
	return seen, nil
}

// search finds the best candidate of the gallery. The caller holds the unit.
func (u *Unit) search(p *presentation) (subject string, score float32) {
	start := time.Now()
	u.matches = u.gallery.Identify(store.Probe{Values: p.values, Scale: p.scale}, u.matches[:0])
	u.app.stats.observe(StageMatch, time.Since(start))
	if len(u.matches) == 0 {
		return "", -1
	}
	return u.matches[0].SubjectID, u.matches[0].Score
}

// inUse reports whether the device works with the bundle.
func (a *Appliance) inUse(id string) bool {
	return slices.ContainsFunc(a.units(), func(u *Unit) bool { return u.rec != nil && u.rec.ModelID() == id })
}

// close frees the models.
func (u *Unit) close() error {
	if u.rec == nil {
		return nil
	}
	err := u.rec.Close()
	u.rec = nil
	return err
}
