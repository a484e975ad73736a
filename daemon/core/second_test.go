package core_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/daemon/decide"
	"vigil/infer/infertest/fake"
	"vigil/sensors/fprint"
	"vigil/sensors/fprint/fprinttest"
	"vigil/store"
)

// TestAFingerIsTheSecondFactor asks the real fprintd, with libfprint's virtual device, beside a comparison of faces.
func TestAFingerIsTheSecondFactor(t *testing.T) {
	bus, err := fprinttest.Start()
	if errors.Is(err, fprinttest.ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bus.Close)
	d := daemontest.NewFake(t, fake.New(), fake.Manifest("fake", false))
	d.Config.Sensors = []config.Sensor{{Name: "second", Driver: config.DriverFprint, Modality: core.Finger, Path: bus.Socket}}
	d.Config.Policy.SecondFactor, d.Config.Policy.SecondTimeout = "second", config.Duration(5*time.Second)
	d.Config.Policy.MaxFailures = 3
	a := d.Open(t)
	defer closeApp(t, a)
	ctx := t.Context()
	if err := a.Start(ctx); err != nil {
		t.Fatal(err)
	}
	annID := enrollPlayed(t, a, 2)
	face := fake.Picture(t, 2, true, true, 9)
	verify := func(want decide.Outcome, result string, scans ...string) {
		t.Helper()
		go func() {
			for _, s := range scans {
				time.Sleep(150 * time.Millisecond)
				if err := bus.Say(s); err != nil {
					t.Error(err)
				}
			}
		}()
		dec := must[core.Decision](t)(a.Verify(ctx, annID, face))
		switch {
		case dec.Outcome != want || (dec.Second == nil) != (result == ""):
			t.Errorf("%v: %+v, second %+v", scans, dec, dec.Second)
		case dec.Second != nil && (dec.Second.Result != result || dec.Second.Sensor != "second"):
			t.Errorf("%v: second %+v, want %s", scans, dec.Second, result)
		}
	}
	verify(decide.NoSecondFactor, "not_enrolled")
	if _, err := a.EnrollPersonAt(ctx, core.Person{Name: "Bob"}, "second"); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("a person who is known by nothing else: %v", err)
	}
	go func() {
		for range 5 {
			time.Sleep(150 * time.Millisecond)
			if err := bus.Say("SCAN thumb"); err != nil {
				t.Error(err)
			}
		}
	}()
	must[core.Enrolled](t)(a.EnrollPersonAt(ctx, core.Person{Subject: annID}, "second"))
	verify(decide.Match, "match", "SCAN thumb")
	verify(decide.NoMatch, "no_match", "SCAN another")
	verify(decide.Match, "match", "RETRY 1", "SCAN thumb")
	dec := must[core.Decision](t)(a.Verify(ctx, annID, fake.Picture(t, 5, true, true, 9)))
	if dec.Outcome != decide.NoMatch || dec.Second != nil {
		t.Errorf("nobody is asked for a finger behind a wrong face: %+v, %+v", dec, dec.Second)
	}
	verify(decide.Match, "match", "SCAN thumb") // and ends the failures
	a.SetSecondTimeout(200 * time.Millisecond)
	for range 4 {
		verify(decide.NoSecondFactor, "timeout")
	}
	a.SetSecondTimeout(5 * time.Second)
	verify(decide.Match, "match", "SCAN thumb") // who was not asked was not locked either
	bus.Deny(true)
	verify(decide.NoSecondFactor, "unavailable")
	if s := a.Status().Sensors[0]; s.State != "denied" || !strings.Contains(s.Reason, "polkit") {
		t.Errorf("polkit says no: %+v", s)
	}
	bus.Deny(false)
	verify(decide.Match, "match", "SCAN thumb")
	bus.StopDaemon()
	verify(decide.NoSecondFactor, "unavailable")
	if s := a.Status(); s.Sensors[0].State != "unplugged" || s.State != "degraded" {
		t.Errorf("without fprintd: %+v", s.Sensors[0])
	}
	if err := bus.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		verify(decide.NoMatch, "no_match", "SCAN another")
	}
	if dec := must[core.Decision](t)(a.Verify(ctx, annID, face)); dec.Outcome != decide.LockedOut || dec.Second != nil {
		t.Errorf("three wrong fingers: %+v", dec)
	}
	if s := a.Status().Sensors[0]; s.State != "running" || s.Driver != config.DriverFprint || s.Falls != 2 {
		t.Errorf("the reader is %+v", s)
	}
	var kinds []string
	for _, e := range a.AuditOf(t, "sensor.") {
		kinds = append(kinds, strings.TrimPrefix(e.Type, "sensor."))
	}
	if got := strings.Join(kinds, " "); got != "denied recovered unplugged recovered" {
		t.Errorf("audited: %s", got)
	}
	if err := a.DeleteSubject(ctx, annID); err != nil {
		t.Fatal(err)
	}
	if left := a.AuditOf(t, "second factor left"); len(left) != 0 {
		t.Errorf("prints are left: %v", left)
	}
	if list := fingersOf(t, bus, "vigil-"+annID); len(list) != 0 {
		t.Errorf("fprintd still has %v of an erased person", list)
	}
}

// TestPrintsThatStayAreTold: the reader is away while a person is erased.
func TestPrintsThatStayAreTold(t *testing.T) {
	d := daemontest.NewFake(t, fake.New(), fake.Manifest("fake", false))
	d.Config.Sensors = []config.Sensor{{Name: "second", Driver: config.DriverFprint, Modality: core.Finger, Path: "/nowhere/bus"}}
	a := d.Open(t)
	defer closeApp(t, a)
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	annID := enrollPlayed(t, a, 2)
	if err := a.DeleteSubject(t.Context(), annID); err != nil {
		t.Fatal(err)
	}
	if left := a.AuditOf(t, "second factor left"); len(left) != 1 || left[0].Subject != annID {
		t.Errorf("audited: %v", left)
	}
}

func fingersOf(t *testing.T, bus *fprinttest.Bus, user string) []string {
	t.Helper()
	conn, err := bus.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	dev, err := fprint.Default(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	list, err := dev.Fingers(t.Context(), user)
	if err != nil && !errors.Is(err, fprint.ErrNotEnrolled) {
		t.Fatal(err)
	}
	return list
}
