package core

import (
	"context"
	"testing"

	"vigil/daemon/config"
	"vigil/sensors"
	"vigil/store"
)

// FramePath gives tests and benchmarks the way of a frame through the appliance, from a captured frame to the decision
// that nothing is to be announced, without the source in front of it.
func (a *Appliance) FramePath() func(ctx context.Context, f *sensors.Frame) {
	s := &sensor{app: a, unit: a.face, cfg: config.Sensor{Name: "bench"}}
	s.prepare(a.face.now())
	return s.frame
}

// SetLivenessThreshold changes the policy of a running appliance that requires liveness.
func (a *Appliance) SetLivenessThreshold(t testing.TB, score float32) {
	t.Helper()
	g := a.face.now()
	for _, r := range g.recs {
		if err := r.(*faceSight).RequireLiveness(score); err != nil {
			t.Fatal(err)
		}
	}
	g.policy.LivenessThreshold = score
}

// AuditTypes lists the types of all audit entries.
func (a *Appliance) AuditTypes(t testing.TB) (kinds []string) {
	t.Helper()
	err := a.store.View(t.Context(), func(tx *store.Tx) error {
		list, err := tx.Audit(1, 1000)
		for _, e := range list {
			kinds = append(kinds, e.Type)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return kinds
}

// DegradeModel is what happens when a model fails at a frame.
func (a *Appliance) DegradeModel(err error) { a.health.degrade("model", err) }

// Tend does what the units need now and then.
func (a *Appliance) Tend(ctx context.Context) {
	for _, u := range a.units() {
		u.tend(ctx, true)
	}
}

// KnownTimes is how many batch sizes the scheduler of faces knows.
func (a *Appliance) KnownTimes() int { return len(a.face.queue.Stats().Curve) }

// ParseCrop reads a kept picture.
func ParseCrop(b []byte) (Picture, error) { return parseCrop(b) }

// KeptCrops are the kept pictures of a person.
func (a *Appliance) KeptCrops(t testing.TB, id string) (crops [][]byte) {
	t.Helper()
	err := a.store.View(t.Context(), func(tx *store.Tx) (err error) {
		crops, err = tx.Crops(id)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return crops
}
