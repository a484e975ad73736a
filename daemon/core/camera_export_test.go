package core

import (
	"testing"
	"time"

	"vigil/daemon/config"
	"vigil/sensors"
	"vigil/sensors/v4l2"
	"vigil/store"
)

// SetCameraKernel is where cameras are looked for. Call it before sensors are added.
func SetCameraKernel(t testing.TB, k v4l2.Kernel) {
	cameraKernel = &k
	t.Cleanup(func() { cameraKernel = nil })
}

// SetStormRules is for tests that have no minute. Call it before sensors are added.
func SetStormRules(t testing.TB, falls int, within, calm time.Duration) {
	before := storms
	storms = stormRules{falls, within, calm}
	t.Cleanup(func() { storms = before })
}

// SetLookedAt is told of every frame that went through the pipeline, while it is held. Call it before sensors are added.
func SetLookedAt(t testing.TB, fn func(*sensors.Frame)) {
	lookedAt = fn
	t.Cleanup(func() { lookedAt = nil })
}

// AuditOf lists the audit entries whose type begins with prefix.
func (a *Appliance) AuditOf(t testing.TB, prefix string) (list []store.AuditEntry) {
	t.Helper()
	err := a.store.View(t.Context(), func(tx *store.Tx) error {
		all, err := tx.Audit(1, 10000)
		for _, e := range all {
			if len(e.Type) >= len(prefix) && e.Type[:len(prefix)] == prefix {
				list = append(list, e)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// PlayIncidents lets a sensor fall for a while, every gap, and come back a second later.
func PlayIncidents(length, gap time.Duration) (entries, falls int, unaudited uint64) {
	i, begin := newIncidents(storms), time.Unix(0, 0)
	for at := time.Duration(0); at < length; at += gap {
		entries += len(i.fall(begin.Add(at), "unplugged", "played"))
		entries += len(i.frame(begin.Add(at + gap/2)))
		falls++
	}
	return entries, falls, i.unaudited
}

// SetSecondTimeout changes the policy between two verifications.
func (a *Appliance) SetSecondTimeout(d time.Duration) {
	a.cfg.Policy.SecondTimeout = config.Duration(d)
}
