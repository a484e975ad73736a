package core_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/infer/infertest/fake"
	"vigil/store"
)

// served opens a device with played models; it is closed when the test ends.
func served(t *testing.T) (*daemontest.Device, *core.Appliance) {
	t.Helper()
	d := daemontest.NewFake(t, fake.New(), fake.Manifest("m", false))
	a := d.Open(t)
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, a
}

func TestTokens(t *testing.T) {
	_, a := served(t)
	made, secret, err := a.CreateToken(t.Context(), "front-desk", config.ScopeEnroller, time.Hour)
	if err != nil || len(secret) != len("vigil_")+43 || made.Scope != config.ScopeEnroller || made.Expires.Sub(made.Created) != time.Hour {
		t.Fatalf("%+v %q %v", made, secret, err)
	}
	found, err := a.TokenOf(t.Context(), secret)
	if err != nil || found != made {
		t.Errorf("%+v, %v", found, err)
	}
	for _, wrong := range []string{"", "vigil_", secret[:len(secret)-1], secret + "A", made.ID} {
		if _, err := a.TokenOf(t.Context(), wrong); !errors.Is(err, core.ErrNoToken) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	if !made.Expired(made.Created.Add(time.Hour)) || made.Expired(made.Created.Add(time.Hour-1)) {
		t.Error("it expires at another time")
	}
	for _, c := range []struct {
		name, scope string
		life        time.Duration
	}{{"", "viewer", 0}, {"A", "viewer", 0}, {"a b", "viewer", 0}, {"a", "none", 0}, {"a", "", 0}, {"a", "viewer", -1}, {"a", "viewer", 200 * 365 * 24 * time.Hour}} {
		if _, _, err := a.CreateToken(t.Context(), c.name, c.scope, c.life); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if err := a.RevokeToken(t.Context(), "x"); !errors.Is(err, core.ErrNoToken) {
		t.Error(err)
	}
	if err := a.RevokeToken(t.Context(), made.ID); err != nil {
		t.Error(err)
	}
	if _, err := a.TokenOf(t.Context(), secret); !errors.Is(err, core.ErrNoToken) {
		t.Errorf("a revoked token: %v", err)
	}
}

// TestTokensOutliveARestart, and as many fit into the store as there may be; expired ones make room.
func TestTokensOutliveARestart(t *testing.T) {
	d := daemontest.NewFake(t, fake.New(), fake.Manifest("m", false))
	a := d.Open(t)
	secrets := map[string]string{}
	for i := range core.MaxTokens {
		life := time.Duration(0)
		if i == core.MaxTokens-1 {
			life = time.Nanosecond // has expired by now
		}
		name := fmt.Sprintf("%062d", i)
		_, secret, err := a.CreateToken(t.Context(), name, config.ScopeViewer, life)
		if err != nil {
			t.Fatal(err)
		}
		secrets[secret] = name
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = d.Open(t)
	defer a.Close()
	good := 0
	for secret, name := range secrets {
		if found, err := a.TokenOf(t.Context(), secret); err == nil && found.Name == name {
			good++
		}
	}
	if list, err := a.Tokens(t.Context()); err != nil || len(list) != core.MaxTokens || good != core.MaxTokens-1 {
		t.Errorf("%d tokens, %d of use, %v", len(list), good, err)
	}
	if _, _, err := a.CreateToken(t.Context(), "another", config.ScopeViewer, 0); err != nil {
		t.Errorf("the expired one makes no room: %v", err)
	}
	if _, _, err := a.CreateToken(t.Context(), "one-more", config.ScopeViewer, 0); !errors.Is(err, core.ErrTokens) {
		t.Errorf("one too many: %v", err)
	}
}

// TestTheAuditNamesWhoAsked looks into the closed store.
func TestTheAuditNamesWhoAsked(t *testing.T) {
	d := daemontest.NewFake(t, fake.New(), fake.Manifest("m", false))
	a := d.Open(t)
	ctx := core.WithCaller(t.Context(), "uid 7")
	news := a.News()
	e, err := a.Enroll(ctx, "Ann", [][]byte{fake.Picture(t, 1, true, true, 1), fake.Picture(t, 1, true, true, 2)})
	if err != nil {
		t.Fatal(err)
	}
	<-news
	if _, err := a.Identify(ctx, fake.Picture(t, 1, true, true, 3)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.CreateToken(ctx, "x", config.ScopeViewer, 0); err != nil {
		t.Fatal(err)
	}
	if err := a.DeleteSubject(ctx, e.Subject); err != nil {
		t.Fatal(err)
	}
	shown, err := a.Events(t.Context(), 0, 100)
	if err != nil || uint64(len(shown)) != a.LastEvent() {
		t.Fatalf("%d events, the last is %d, %v", len(shown), a.LastEvent(), err)
	}
	for _, s := range shown {
		if s.Detail["by"] != nil {
			t.Errorf("%s shows who asked: %v", s.Type, s.Detail)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	by := map[string]any{}
	dev, err := core.OpenDevice(t.Context(), d.Config)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	s, err := store.Open(store.Options{Path: core.StorePath(d.Config.StateDir), Keyring: dev.Keyring(), Logger: daemontest.Logger(t), Outbox: store.DefaultOutboxLimits()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.View(t.Context(), func(tx *store.Tx) error {
		list, err := tx.Audit(1, 100)
		for _, e := range list {
			by[e.Type] = e.Detail["by"]
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[string]any{
		"enroll": "local: uid 7", "decision": "local: uid 7", "token.create": "local: uid 7", "subject.delete": "local: uid 7", "model.import": nil,
	} {
		if by[kind] != want {
			t.Errorf("%s by %v, want %v", kind, by[kind], want)
		}
	}
}
