package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"

	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/fleet"
	"vigil/fleet/fleettest"
	"vigil/store"
)

// mosquitto starts the real broker, or skips.
func mosquitto(t *testing.T, pki *fleettest.PKI) *fleettest.Mosquitto {
	t.Helper()
	dir, err := os.MkdirTemp("", "vigil-mosquitto")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m, err := fleettest.NewMosquitto(pki, tenantOfTests, dir)
	if errors.Is(err, fleettest.ErrNoMosquitto) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("mosquitto: %v", err)
		}
	})
	return m
}

// TestADeviceInItsFleet runs a device whose TLS key is in the TPM against Mosquitto with mutual TLS and an ACL: events
// arrive, commands are carried out once, bad ones are refused, counted and audited, and a dead broker costs nothing.
func TestADeviceInItsFleet(t *testing.T) {
	d := daemontest.NewWithModel(t)
	pki, err := fleettest.NewPKI(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	b := mosquitto(t, pki)
	f := joinFleet(t, d, pki, b)
	a := d.Open(t)
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	pics := daemontest.Pictures(t, "Jiang_Zemin", 5)
	e, err := a.Enroll(ctx, "Ann", pics[:3])
	if err != nil {
		t.Fatal(err)
	}
	device := a.DeviceID()
	if err := f.manager.Await(ctx, func() bool { b, ok := f.manager.Birth(device); return ok && len(b.Models) == 2 }); err != nil {
		t.Fatalf("no birth: %v", err)
	}
	do := func(c fleet.Command) fleet.Result {
		t.Helper()
		r, err := f.manager.Do(ctx, c)
		if err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		return r
	}
	command := func(name string, args any) fleet.Command {
		t.Helper()
		c, err := f.manager.Command(device, name, args)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}

	var s core.Status
	if r := do(command(fleet.CommandStatus, nil)); r.Status != fleet.StatusOK || json.Unmarshal(r.Body, &s) != nil || s.Subjects != 1 {
		t.Errorf("status: %+v", r)
	}

	// The broker dies; decisions are made all the same and arrive when it is back.
	if err := b.Kill(); err != nil {
		t.Fatal(err)
	}
	list, err := a.Identify(ctx, pics[4])
	if err != nil || list[0].Subject != e.Subject {
		t.Fatalf("identify without a broker: %+v %v", list, err)
	}
	if n := a.Status().Outbox.Records; n == 0 {
		t.Error("the decision does not wait in the outbox")
	}
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := f.manager.Await(ctx, func() bool { return f.decisions()[list[0].ID] }); err != nil {
		t.Fatalf("the decision never came: %v", err)
	}

	// Erased once; the repeat gets the recorded answer.
	erase := command(fleet.CommandSubjectDelete, map[string]string{"subject": e.Subject})
	if r := do(erase); r.Status != fleet.StatusOK || r.Repeated || string(r.Body) != `{"deleted":true}` {
		t.Errorf("delete: %+v", r)
	}
	if err := f.manager.Send(ctx, erase); err != nil {
		t.Fatal(err)
	}
	if err := f.manager.Await(ctx, func() bool { return f.repeated(erase.ID, `{"deleted":true}`) }); err != nil {
		t.Errorf("the same command again did not get the recorded answer: %v", err)
	}
	if r := do(command(fleet.CommandSubjectDelete, map[string]string{"subject": e.Subject})); string(r.Body) != `{"deleted":false,"reason":"no such subject"}` {
		t.Errorf("delete of nobody: %+v", r)
	}

	refuse(ctx, t, f, a, erase)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	checkAudit(t, d, map[string]int{"enroll": 1, "decision": 1, "subject.delete": 1, "command": 3, "command.refused": 5})
}

// repeated reports whether the recorded answer to a command came a second time.
func (f *testFleet) repeated(id, body string) bool {
	for _, e := range f.manager.Events() {
		if e.Class != fleet.ClassResult {
			continue
		}
		if r, err := fleet.ParseResult(e.Body); err == nil && r.ID == id && r.Repeated && string(r.Body) == body {
			return true
		}
	}
	return false
}

// refuse sends what must not be obeyed and waits until each is counted.
func refuse(ctx context.Context, t *testing.T, f *testFleet, a *core.Appliance, used fleet.Command) {
	t.Helper()
	device := a.DeviceID()
	sign := func(change func(c *fleet.Command)) []byte {
		c, err := f.manager.Command(device, fleet.CommandStatus, nil)
		if err != nil {
			t.Fatal(err)
		}
		change(&c)
		jws, err := f.authority.Sign(c)
		if err != nil {
			t.Fatal(err)
		}
		return []byte(jws)
	}
	bad := map[fleet.Reason][]byte{
		fleet.ReasonUnsigned: []byte(`{"cmd":"subject.delete"}`),
		fleet.ReasonExpired: sign(func(c *fleet.Command) {
			c.IssuedAt, c.Expires = c.IssuedAt.Add(-3*time.Hour), c.IssuedAt.Add(-2*time.Hour)
		}),
		fleet.ReasonForeign: sign(func(c *fleet.Command) { c.Device = "0123456789abcdef" }),
		fleet.ReasonFuture: sign(func(c *fleet.Command) {
			c.IssuedAt, c.Expires = c.IssuedAt.Add(time.Hour), c.IssuedAt.Add(2*time.Hour)
		}),
		fleet.ReasonReplayed: sign(func(c *fleet.Command) {
			c.ID = used.ID // of another command
		}),
	}
	for reason, payload := range bad {
		if err := f.manager.SendRaw(ctx, device, payload); err != nil {
			t.Fatalf("%s: %v", reason, err)
		}
	}
	for reason := range bad {
		for a.Status().Fleet.Refused[reason] != 1 {
			if ctx.Err() != nil {
				t.Fatalf("%s was not refused: %v", reason, a.Status().Fleet.Refused)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// checkAudit counts the audit entries of a closed device by type.
func checkAudit(t *testing.T, d *daemontest.Device, want map[string]int) {
	t.Helper()
	dev, err := core.OpenDevice(t.Context(), d.Config)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	s, err := store.Open(store.Options{Path: core.StorePath(d.Config.StateDir), Keyring: dev.Keyring()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got := map[string]int{}
	err = s.View(t.Context(), func(tx *store.Tx) error {
		page, err := tx.Audit(1, 1000)
		for _, e := range page {
			got[e.Type]++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for kind, n := range want {
		if got[kind] != n {
			t.Errorf("audit has %d entries of type %s, must have %d (all: %v)", got[kind], kind, n, got)
		}
	}
}

// TestADeviceWithoutItsBroker starts a device whose broker was never there.
func TestADeviceWithoutItsBroker(t *testing.T) {
	d := daemontest.NewWithModel(t)
	pki, err := fleettest.NewPKI(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	b, err := fleettest.NewBroker(pki, nil)
	if err != nil {
		t.Fatal(err)
	}
	f := joinFleet(t, d, pki, b)
	if err := b.Kill(); err != nil {
		t.Fatal(err)
	}
	a := d.Open(t)
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	pics := daemontest.Pictures(t, "Jiang_Zemin", 1)
	list, err := a.Identify(t.Context(), pics[0])
	if err != nil {
		t.Fatal(err)
	}
	if s := a.Status(); s.State != "degraded" || s.Outbox.Records == 0 {
		t.Errorf("status without a broker: %s, outbox %+v", s.State, s.Outbox)
	}
	if err := a.Close(); err != nil { // and the decision outlives a restart
		t.Fatal(err)
	}
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	a = d.Open(t)
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := f.manager.Await(ctx, func() bool { return f.decisions()[list[0].ID] }); err != nil {
		t.Errorf("the decision never came: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}
