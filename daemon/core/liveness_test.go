package core_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/daemon/decide"
	"vigil/infer/infertest/fake"
	"vigil/sensors"
	"vigil/sensors/picture"
)

// played is a device with fake models and a policy of liveness, open.
func played(t *testing.T, liveness string, change func(*config.Config)) (*core.Appliance, *fake.Runtime) {
	t.Helper()
	rt := fake.New()
	d := daemontest.NewFake(t, rt, fake.Manifest("fake", true))
	d.Config.Policy.Liveness = liveness
	if change != nil {
		change(&d.Config)
	}
	a := d.Open(t)
	t.Cleanup(func() { closeApp(t, a) })
	return a, rt
}

func enrollPlayed(t *testing.T, a *core.Appliance, person int) string {
	t.Helper()
	e, err := a.Enroll(t.Context(), "Ann", [][]byte{fake.Picture(t, person, true, true, 1), fake.Picture(t, person, true, true, 2)})
	if err != nil {
		t.Fatal(err)
	}
	return e.Subject
}

// TestLivenessPolicy: what a picture of the enrolled person 2 comes to, by policy, liveness and quality.
func TestLivenessPolicy(t *testing.T) {
	for _, c := range []struct {
		policy       string
		threshold    float64
		alive, sharp bool
		want         decide.Outcome
	}{
		{config.LivenessOff, 0, true, true, decide.Match},
		{config.LivenessOff, 0, false, true, decide.Match},
		{config.LivenessRequired, 0, true, true, decide.Match},
		{config.LivenessRequired, 0, false, true, decide.PresentationAttack},
		{config.LivenessRequired, 0, false, false, decide.LowQuality}, // too poor to be called an attack
		{config.LivenessRequired, 0, true, false, decide.LowQuality},
		{config.LivenessRequired, 0.9999999, true, true, decide.PresentationAttack}, // of the configuration, not the bundle
	} {
		name := fmt.Sprintf("%s/%v/alive=%v/sharp=%v", c.policy, c.threshold, c.alive, c.sharp)
		t.Run(name, func(t *testing.T) {
			a, rt := played(t, c.policy, nil)
			sub := enrollPlayed(t, a, 2)
			if c.threshold > 0 { // the person was enrolled under the bundle's
				a.SetLivenessThreshold(t, float32(c.threshold))
			}
			before := rt.Runs("fake embedder")
			picture := fake.Picture(t, 2, c.alive, c.sharp, 9)
			v := must[core.Decision](t)(a.Verify(t.Context(), sub, picture))
			list := must[[]core.Decision](t)(a.Identify(t.Context(), picture))
			if v.Outcome != c.want || len(list) != 1 || list[0].Outcome != c.want {
				t.Errorf("verify %q, identify %+v, want %q", v.Outcome, list, c.want)
			}
			if scored := v.Liveness != nil && list[0].Liveness != nil; scored != (c.policy == config.LivenessRequired) {
				t.Errorf("liveness %v", v.Liveness)
			}
			attack := c.policy == config.LivenessRequired && (!c.alive || c.threshold > 0)
			if ran := rt.Runs("fake embedder") > before; ran == attack {
				t.Errorf("the face was embedded: %v, although it is an attack: %v", ran, attack)
			}
			if c.want == decide.PresentationAttack && (v.Score != 0 || list[0].Subject != "" || !(v.Liveness.Score < v.Liveness.Threshold)) {
				t.Errorf("an attack was compared: %+v %+v", v, list[0])
			}
		})
	}
}

func TestAttacksCountTowardsTheLockout(t *testing.T) {
	a, _ := played(t, config.LivenessRequired, func(c *config.Config) { c.Policy.MaxFailures = 3 })
	sub := enrollPlayed(t, a, 2)
	attack := fake.Picture(t, 2, false, true, 5)
	for i := range 3 {
		d := must[core.Decision](t)(a.Verify(t.Context(), sub, attack))
		if d.Outcome != decide.PresentationAttack || d.Until.IsZero() == (i == 2) {
			t.Errorf("attempt %d: %+v", i+1, d)
		}
	}
	if d := must[core.Decision](t)(a.Verify(t.Context(), sub, fake.Picture(t, 2, true, true, 6))); d.Outcome != decide.LockedOut {
		t.Errorf("after three attacks: %+v", d)
	}
}

func TestEnrollmentOfAPicture(t *testing.T) {
	a, _ := played(t, config.LivenessRequired, nil)
	w := a.Watch()
	defer w.Stop()
	real, attack := fake.Picture(t, 1, true, true, 1), fake.Picture(t, 1, false, true, 2)
	e, err := a.Enroll(t.Context(), "Mallory", [][]byte{real, attack, attack})
	if !errors.Is(err, core.ErrPresentationAttack) || !errors.Is(err, core.ErrSamples) || len(e.Refused) != 2 || !strings.Contains(e.Refused[0].Reason, "not a picture of it") {
		t.Errorf("%v, %+v", err, e)
	}
	d := <-w.C
	if d.Operation != decide.Enroll || d.Outcome != decide.PresentationAttack || d.Frames != 2 || d.Subject != "" || d.Liveness == nil {
		t.Errorf("%+v", d)
	}
	if n, _ := a.Subjects(t.Context(), "", 10); len(n) != 0 {
		t.Errorf("enrolled: %+v", n)
	}
	if e, err := a.Enroll(t.Context(), "Ann", [][]byte{real, attack, fake.Picture(t, 1, true, true, 3)}); err != nil || e.Samples != 2 {
		t.Errorf("two good pictures among three: %v, %+v", err, e)
	}
}

// TestAttackAtASensor: a picture that is held before a camera for a while is one decision, and nobody is matched.
func TestAttackAtASensor(t *testing.T) {
	a, _ := played(t, config.LivenessRequired, nil)
	enrollPlayed(t, a, 2)
	dir := t.TempDir()
	for i := range 12 {
		alive := i%4 == 3 && i < 4 // one frame passes for alive
		name := filepath.Join(dir, fmt.Sprintf("%02d.png", i))
		if err := os.WriteFile(name, fake.Picture(t, 2, alive, true, uint64(i)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w := a.Watch()
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := a.AddSensor(t.Context(), config.Sensor{Name: "door", Driver: "replay", Path: dir, Step: true}); err != nil {
		t.Fatal(err)
	}
	if err := a.WaitSensor(t.Context(), "door"); err != nil {
		t.Fatal(err)
	}
	w.Stop()
	var got []core.Decision
	for d := range w.C {
		got = append(got, d)
	}
	if len(got) != 1 || got[0].Outcome != decide.PresentationAttack || got[0].Sensor != "door" || got[0].Subject != "" || got[0].Liveness == nil {
		t.Errorf("%+v", got)
	}
}

// TestLivenessRequiredOfABundleWithout: the daemon does not start, but the commands that mend it work.
func TestLivenessRequiredOfABundleWithout(t *testing.T) {
	d := daemontest.NewFake(t, fake.New(), fake.Manifest("fake", false))
	d.Config.Policy.Liveness = config.LivenessRequired
	a := d.Open(t)
	err := a.Start(t.Context())
	if !errors.Is(err, core.ErrNoLiveness) || !strings.Contains(err.Error(), "--preset face-liveness") || !strings.Contains(err.Error(), `policy.liveness = "off"`) {
		t.Errorf("start: %v", err)
	}
	if _, err := a.Identify(t.Context(), fake.Picture(t, 1, true, true, 1)); !errors.Is(err, core.ErrNoLiveness) {
		t.Errorf("identify: %v", err)
	}
	if s := a.Status(); s.State != "degraded" || !strings.Contains(strings.Join(s.Degraded, ""), "no liveness stage") {
		t.Errorf("%+v", s)
	}
	if _, err := a.ImportModel(t.Context(), fake.Write(t, fake.Manifest("fake-live", true), nil), ""); err != nil {
		t.Fatal(err)
	}
	closeApp(t, a)
	d.Config.Models.Face = "fake-live"
	a = d.Open(t)
	defer closeApp(t, a)
	if err := a.Start(t.Context()); err != nil {
		t.Errorf("with the other bundle: %v", err)
	}
}

// TestTheFramePathWithLivenessAllocatesNothing: living people and attacks in front of a camera, once all is announced.
func TestTheFramePathWithLivenessAllocatesNothing(t *testing.T) {
	a, _ := played(t, config.LivenessRequired, nil)
	enrollPlayed(t, a, 2)
	for _, alive := range []bool{true, false} {
		f, err := picture.Decode(t.Context(), sensors.NewPool(1), fake.Picture(t, 2, alive, true, 1))
		if err != nil {
			t.Fatal(err)
		}
		path := a.FramePath()
		show := func() {
			f.Captured = time.Now()
			path(t.Context(), f)
		}
		for range 8 {
			show() // the visit is announced once; then nothing is to be said
		}
		if n := testing.AllocsPerRun(20, show); n > 0 {
			t.Errorf("alive %v: %.1f allocations a frame", alive, n)
		}
		f.Release()
	}
}
