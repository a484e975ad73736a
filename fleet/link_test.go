package fleet_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"vigil/fleet"
	"vigil/fleet/fleettest"
)

func TestNewChecks(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*fleet.Config, *fleet.Deps){
		"tenant":         func(c *fleet.Config, _ *fleet.Deps) { c.Tenant = "a/b" },
		"device":         func(c *fleet.Config, _ *fleet.Deps) { c.Device = "#" },
		"origin":         func(c *fleet.Config, _ *fleet.Deps) { c.Origin = "a b" },
		"no TLS":         func(c *fleet.Config, _ *fleet.Deps) { c.TLS = nil },
		"TLS 1.2":        func(c *fleet.Config, _ *fleet.Deps) { c.TLS = &tls.Config{MinVersion: tls.VersionTLS12} },
		"unverified":     func(c *fleet.Config, _ *fleet.Deps) { c.TLS = c.TLS.Clone(); c.TLS.InsecureSkipVerify = true },
		"plain MQTT":     func(c *fleet.Config, _ *fleet.Deps) { c.Broker = "tcp://127.0.0.1:1883" },
		"no port":        func(c *fleet.Config, _ *fleet.Deps) { c.Broker = "localhost" },
		"management key": func(c *fleet.Config, _ *fleet.Deps) { c.ManagementKey = nil },
		"command key":    func(c *fleet.Config, _ *fleet.Deps) { c.CommandKeys = []ed25519.PublicKey{{1}} },
		"window":         func(c *fleet.Config, _ *fleet.Deps) { c.Window = -1 },
		"backoff":        func(c *fleet.Config, _ *fleet.Deps) { c.BackoffBase = 2 * time.Hour },
		"keepalive":      func(c *fleet.Config, _ *fleet.Deps) { c.KeepAlive = time.Millisecond },
		"timeout":        func(c *fleet.Config, _ *fleet.Deps) { c.AckTimeout = -1 },
		"no outbox":      func(_ *fleet.Config, d *fleet.Deps) { d.Outbox = nil },
		"no session":     func(_ *fleet.Config, d *fleet.Deps) { d.NextSession = nil },
	} {
		cfg, deps := w.config(t, "127.0.0.1:1"), w.deps()
		change(&cfg, &deps)
		if _, err := fleet.New(cfg, deps); err == nil {
			t.Errorf("%s: New takes it", name)
		}
	}
}

// After Run nothing is left of it: no goroutine of ours, of paho, of TLS.
func TestRunLeavesNothing(t *testing.T) {
	w := newWorld(t)
	b, err := fleettest.NewBroker(w.pki, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	x := w.proxy(t, b.Addr())
	eventually(t, "broker is at rest", func() bool { return b.Addr() != "" })
	before := runtime.NumGoroutine()

	l := start(t, w.config(t, x.Addr()), w.deps())
	for range 5 { // with lost connections too
		eventually(t, "connected", func() bool { return l.Status().Connected })
		w.outbox.add("decision", `{}`)
		x.Cut()
		eventually(t, "lost", func() bool { s := l.Status(); return !s.Connected || s.Failures > 0 })
	}
	eventually(t, "connected", func() bool { return l.Status().Connected })
	if err := l.Run(context.Background()); !errors.Is(err, fleet.ErrRunning) {
		t.Errorf("a second Run: %v", err)
	}
	l.stop()
	x.Cut()
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
		}
	}
}

// A broker that is not there, or takes the connection and says nothing, only makes the outbox grow; Run still ends.
func TestDeadBroker(t *testing.T) {
	w := newWorld(t)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	server, err := w.pki.ServerTLS()
	if err != nil {
		t.Fatal(err)
	}
	swallow := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	for name, addr := range map[string]string{
		"nobody listens": gone.Addr().String(),
		"silent TCP":     fakeBroker(t, swallow),
		"silent MQTT":    fakeBroker(t, func(c net.Conn) { swallow(tls.Server(c, server)) }),
	} {
		t.Run(name, func(t *testing.T) {
			cfg := w.config(t, addr)
			cfg.ConnectTimeout = 100 * time.Millisecond
			l := start(t, cfg, w.deps())
			w.outbox.add("decision", `{}`)
			eventually(t, "it tries again", func() bool { return l.Status().Failures >= 3 })
			began := time.Now()
			l.stop()
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("Run took %v to end", took)
			}
			if s := l.Status(); s.Connected || s.LastError == "" || s.Published != 0 {
				t.Errorf("status %+v", s)
			}
		})
	}
	if left, _ := w.outbox.ids(); len(left) != 3 {
		t.Errorf("the outbox has %v", left)
	}
}

// hostile speaks MQTT just far enough to send what a liar would.
func hostile(cfg *tls.Config, answer func(packets.ControlPacket, net.Conn)) func(net.Conn) {
	return func(raw net.Conn) {
		c := tls.Server(raw, cfg)
		for {
			p, err := packets.ReadPacket(c)
			if err != nil {
				return
			}
			switch p := p.(type) {
			case *packets.ConnectPacket:
				_ = packets.NewControlPacket(packets.Connack).Write(c)
			case *packets.PublishPacket:
				ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
				ack.MessageID = p.MessageID
				_ = ack.Write(c)
			}
			answer(p, c)
		}
	}
}

// A broker that lies can delay, but neither crash the daemon nor make it drop a record.
func TestHostileBroker(t *testing.T) {
	w := newWorld(t)
	server, err := w.pki.ServerTLS()
	if err != nil {
		t.Fatal(err)
	}
	w.outbox.add("decision", `{}`)
	var asked atomic.Int64
	for name, c := range map[string]struct {
		onSubscribe func(uint16, net.Conn)
		want        string
	}{
		"SUBACK with two codes": {func(mid uint16, c net.Conn) { suback(c, mid, 1, 1) }, "breaks the protocol"},
		"SUBACK refuses":        {func(mid uint16, c net.Conn) { suback(c, mid, 0x80) }, "check its ACL"},
		"256 MiB announced":     {func(_ uint16, c net.Conn) { _, _ = c.Write([]byte{0x32, 0xff, 0xff, 0xff, 0x7f}) }, "too large"},
		"nothing":               {func(uint16, net.Conn) { asked.Add(1) }, "cannot subscribe"},
		"noise":                 {func(_ uint16, c net.Conn) { _, _ = c.Write([]byte("\xffnoise")) }, "breaks the protocol"},
	} {
		t.Run(name, func(t *testing.T) {
			addr := fakeBroker(t, hostile(server, func(p packets.ControlPacket, conn net.Conn) {
				if sub, ok := p.(*packets.SubscribePacket); ok {
					c.onSubscribe(sub.MessageID, conn)
				}
			}))
			cfg := w.config(t, addr)
			cfg.ConnectTimeout = 300 * time.Millisecond
			l := start(t, cfg, w.deps())
			eventually(t, c.want, func() bool { return strings.Contains(l.Status().LastError, c.want) })
		})
	}
	if left, _ := w.outbox.ids(); len(left) != 1 {
		t.Errorf("the outbox has %v", left)
	}
}

func suback(c net.Conn, mid uint16, codes ...byte) {
	p := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
	p.MessageID, p.ReturnCodes = mid, codes
	_ = p.Write(c)
}

// The clock of a device without a battery: the link says so and comes up when the clock is set.
func TestWrongClock(t *testing.T) {
	w := newWorld(t)
	b, err := fleettest.NewBroker(w.pki, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var right atomic.Bool
	deps := w.deps()
	deps.Now = func() time.Time {
		if right.Load() {
			return time.Now()
		}
		return time.Unix(0, 0)
	}
	l := start(t, w.config(t, b.Addr()), deps)
	eventually(t, "clock is named", func() bool { return strings.Contains(l.Status().LastError, fleet.ErrClock.Error()) })
	right.Store(true)
	eventually(t, "link is up", func() bool { return l.Status().Connected })
	l.stop()
	if _, err := json.Marshal(l.Status()); err != nil {
		t.Error(err)
	}
}
