package core_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/sensors/session"
)

// reader is a sensor of generated fingers.
func reader(n int) config.Sensor {
	return config.Sensor{Name: "reader", Driver: config.DriverSynth, Modality: core.Finger, Fingers: n, Impressions: 1, Seed: 4}
}

func TestARecordedSessionIsDecidedAsTheSensorWas(t *testing.T) {
	d := daemontest.New(t)
	d.Config.Models.Face = "off"
	d.Config.Policy.FrameDeadline = config.Duration(time.Minute) // a slow machine gives up no touch
	d.Config.Sensors = []config.Sensor{reader(3)}
	a := d.Open(t)
	defer closeApp(t, a)
	path := filepath.Join(t.TempDir(), "a"+core.SessionExt)
	var b bytes.Buffer
	if _, err := a.Record(t.Context(), core.Recording{Sensor: "reader", Expires: time.Hour, For: time.Minute}, &b); !errors.Is(err, session.ErrNoConsent) {
		t.Errorf("without consent: %v", err)
	}
	if _, err := a.Record(t.Context(), core.Recording{Sensor: "cellar", Consent: "x", Expires: time.Hour, For: time.Minute}, &b); !errors.Is(err, core.ErrNoSensor) {
		t.Errorf("of no sensor: %v", err)
	}
	b.Reset()
	r, err := a.Record(t.Context(), core.Recording{Sensor: "reader", Consent: "nobody: generated", Expires: time.Hour, For: time.Minute}, &b)
	if err != nil || r.Frames != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	played := config.Sensor{Name: "played", Driver: config.DriverReplay, Modality: core.Finger, Path: path, Step: true}
	decisions := func(c config.Sensor) (list []core.Decision) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		w := a.Watch()
		defer w.Stop()
		if err := a.AddSensor(ctx, c); err != nil {
			t.Fatal(err)
		}
		if err := a.WaitSensor(ctx, c.Name); err != nil {
			t.Fatal(err)
		}
		for len(list) < 3 {
			select {
			case d := <-w.C:
				list = append(list, d)
			case <-ctx.Done():
				t.Fatalf("%d decisions of 3", len(list))
			}
		}
		return list
	}
	direct, again := decisions(reader(3)), decisions(played)
	for i := range direct {
		if direct[i].Outcome != again[i].Outcome || direct[i].Quality != again[i].Quality {
			t.Errorf("touch %d: %v with quality %v, played %v with %v", i, direct[i].Outcome, direct[i].Quality, again[i].Outcome, again[i].Quality)
		}
	}
	d = daemontest.New(t)
	d.Config.Models.Face = "off"
	other := d.Open(t)
	defer closeApp(t, other)
	if err := other.AddSensor(t.Context(), played); err == nil {
		t.Error("another device plays the session")
	}
}

// TestTheBusIsOffUntilItIsWanted and then serves the sensors' frames by the rules.
func TestTheBusIsOffUntilItIsWanted(t *testing.T) {
	d := daemontest.New(t)
	d.Config.Models.Face, d.Config.Sensors = "off", []config.Sensor{reader(2)}
	a := d.Open(t)
	defer closeApp(t, a)
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a.Status().Bus != nil {
		t.Error("frames are shared without being asked for")
	}
	d = daemontest.New(t)
	d.Config.Models.Face, d.Config.Sensors = "off", []config.Sensor{reader(2)}
	socket := filepath.Join(t.TempDir(), "bus")
	d.Config.Bus = config.Bus{Socket: socket, Readers: []string{fmt.Sprint("user:", os.Getuid())}, Slots: 4, FrameMiB: 1}
	a = d.Open(t)
	defer closeApp(t, a)
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := a.WaitSensor(ctx, "reader"); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "vigil-bus/1 reader\n")
	if answer, err := io.ReadAll(c); string(answer) != "ok\n" {
		t.Errorf("answer %q, %v", answer, err)
	}
	s := a.Status().Bus
	if s == nil || s.Rings["reader"].Frames != 2 || s.Rings["reader"].CopiedBytes == 0 {
		t.Errorf("%+v", s)
	}
}
