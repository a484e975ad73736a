package core_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/infer/infertest/fake"
	"vigil/sensors/v4l2"
	"vigil/sensors/v4l2/v4l2test"
)

// pinned is the camera of the configuration, by all that can be pinned.
const (
	pinnedUSB, pinnedSerial, pinnedCard = "046d:085e", "A1", "Webcam"
)

func porch() config.Sensor {
	return config.Sensor{
		Name: "porch", Driver: config.DriverV4L2, Path: v4l2.ByPath + v4l2test.Place, USB: pinnedUSB, Serial: pinnedSerial, Card: pinnedCard,
	}
}

// atThePorch starts the appliance, watches it, and adds the camera with a pixel format.
func atThePorch(t *testing.T, a *core.Appliance, format string) *core.Watcher {
	t.Helper()
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := a.Watch()
	t.Cleanup(w.Stop)
	cam := porch()
	cam.Format = format
	if err := a.AddSensor(t.Context(), cam); err != nil {
		t.Fatal(err)
	}
	return w
}

// rig is a device with a camera of its configuration on a machine whose kernel is played; the driver and the daemon's core
// are the real ones.
type rig struct {
	t       *testing.T
	machine *v4l2test.Machine
	camera  *v4l2test.Camera // the pinned one
	app     *core.Appliance
}

// newCamera delivers 50 frames a second.
func newCamera() *v4l2test.Camera {
	k := v4l2test.NewCamera()
	k.Interval = 20 * time.Millisecond
	return k
}

// newRig starts the device; the pinned camera is plugged in by prepare, or here.
func newRig(t *testing.T, prepare func(r *rig)) *rig {
	t.Helper()
	r := &rig{t: t, machine: v4l2test.NewMachine(t.TempDir()), camera: newCamera()}
	core.SetCameraKernel(t, v4l2.Kernel{Sys: r.machine.Sys, Dev: "/dev", Open: func(path string) (v4l2.Node, uint64, error) { return r.machine.Open(path) }})
	if prepare == nil {
		r.plug()
	} else {
		prepare(r)
	}
	d := daemontest.NewFake(t, fake.New(), fake.Manifest("fake", false))
	d.Config.Sensors = []config.Sensor{porch()}
	r.app = d.Open(t)
	t.Cleanup(func() { closeApp(t, r.app) })
	if err := r.app.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// plug puts the pinned camera where it belongs.
func (r *rig) plug() {
	r.t.Helper()
	r.must(r.machine.Plug(0, "1", pinnedUSB, pinnedSerial, pinnedCard, r.camera))
}

func (r *rig) unplug(number int) {
	r.t.Helper()
	r.must(r.machine.Unplug(number))
}

func (r *rig) sensor() core.SensorStatus { return r.app.Status().Sensors[0] }

// until waits for a state of the sensor.
func (r *rig) until(state string) core.SensorStatus {
	r.t.Helper()
	for limit := time.Now().Add(40 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s := r.sensor()
		if s.State == state {
			return s
		}
		if time.Now().After(limit) {
			r.t.Fatalf("the sensor is %s (%s), not %s", s.State, s.Reason, state)
		}
	}
}

// flows makes sure that frames come.
func (r *rig) flows() {
	r.t.Helper()
	r.until("running")
	was := r.sensor().Frames
	for limit := time.Now().Add(20 * time.Second); r.sensor().Frames < was+3; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			r.t.Fatalf("no frames: %+v", r.sensor())
		}
	}
}

// metric is a line of the metrics, without its value.
func (r *rig) metric(name string, labels ...string) (value float64, ok bool) {
	r.t.Helper()
	families, err := r.app.Metrics().Gather()
	r.must(err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var got []string
			for _, l := range m.GetLabel() {
				got = append(got, l.GetName()+"="+l.GetValue())
			}
			if !slices.ContainsFunc(labels, func(l string) bool { return !slices.Contains(got, l) }) {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue(), true
			}
		}
	}
	return 0, false
}

// shown makes sure that a state is shown by its name in status, health and metrics.
func (r *rig) shown(state string) {
	r.t.Helper()
	s := r.app.Status()
	if s.State != "degraded" || !slices.ContainsFunc(s.Degraded, func(d string) bool {
		return strings.HasPrefix(d, "sensor porch: ") && strings.Contains(d, state)
	}) {
		r.t.Errorf("health does not tell of %s: %s %q", state, s.State, s.Degraded)
	}
	if s.Sensors[0].Reason == "" && state != "unstable" {
		r.t.Errorf("%s has no reason", state)
	}
	if v, ok := r.metric("vigil_sensor_state", "sensor=porch", "state="+state); !ok || v != 1 {
		r.t.Errorf("metrics do not tell of %s", state)
	}
	if v, _ := r.metric("vigil_sensor_running", "sensor=porch"); v != 0 {
		r.t.Errorf("metrics call a sensor that is %s running", state)
	}
}

// kinds are the audited troubles of the sensor in their order, which must be those of the event stream.
func (r *rig) kinds() (kinds []string) {
	r.t.Helper()
	entries := r.app.AuditOf(r.t, "sensor.")
	for _, e := range entries {
		if e.Detail["sensor"] != "porch" {
			r.t.Errorf("%s is of no sensor: %v", e.Type, e.Detail)
		}
		kinds = append(kinds, strings.TrimPrefix(e.Type, "sensor."))
	}
	var streamed []string
	events, err := r.app.Events(r.t.Context(), 0, 10000)
	r.must(err)
	for _, e := range events {
		if kind, ok := strings.CutPrefix(e.Type, "sensor."); ok {
			streamed = append(streamed, kind)
		}
	}
	if !slices.Equal(kinds, streamed) {
		r.t.Errorf("audited %v, streamed %v", kinds, streamed)
	}
	return kinds
}

// audited waits for the entry and makes sure that they are these.
func (r *rig) audited(want ...string) {
	r.t.Helper()
	for limit := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		got := r.kinds()
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(limit) || len(got) > len(want) {
			r.t.Fatalf("audited %v, want %v", got, want)
		}
	}
}

// last is the detail of the latest entry.
func (r *rig) last() map[string]any {
	list := r.app.AuditOf(r.t, "sensor.")
	return list[len(list)-1].Detail
}

// TestAFakeCameraIsToldAndRecovered: a virtual camera that calls itself like the pinned one, somewhere else, while the pinned
// one is gone.
func TestAFakeCameraIsToldAndRecovered(t *testing.T) {
	r := newRig(t, nil)
	r.flows()
	r.unplug(0)
	r.until("unplugged")
	r.shown("unplugged")
	r.must(r.machine.Plug(3, "2.3", "dead:beef", "", pinnedCard, newCamera()))
	s := r.until("fake")
	r.shown("fake")
	if !strings.Contains(s.Reason, "usb-0:2.3:1.0") || !strings.Contains(s.Reason, "Webcam") {
		t.Errorf("the reason does not say what and where it is: %s", s.Reason)
	}
	frames, opens := r.sensor().Frames, r.machine.Opens()
	time.Sleep(500 * time.Millisecond)
	if r.sensor().Frames != frames || r.machine.Opens() != opens {
		t.Error("the fake was opened")
	}
	r.camera = newCamera()
	r.plug() // the fake stays: where the pinned one is, nobody takes it for that
	r.flows()
	r.audited("unplugged", "fake", "recovered")
	if d := r.last(); d["from"] != "fake" || d["away_seconds"] == nil {
		t.Errorf("recovered: %v", d)
	}
}

// TestASwappedCameraIsToldAndRecovered: another camera is where the pinned one was.
func TestASwappedCameraIsToldAndRecovered(t *testing.T) {
	for name, id := range map[string][3]string{
		"of another make": {"1234:5678", pinnedSerial, pinnedCard}, "its twin": {pinnedUSB, "B2", pinnedCard}, "of another name": {pinnedUSB, pinnedSerial, "Cam"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.flows()
			r.unplug(0)
			r.until("unplugged")
			r.must(r.machine.Plug(0, "1", id[0], id[1], id[2], newCamera()))
			if s := r.until("swapped"); !strings.Contains(s.Reason, "pinned is") {
				t.Errorf("the reason does not say what is pinned: %s", s.Reason)
			}
			r.shown("swapped")
			r.unplug(0)
			r.until("unplugged")
			r.camera = newCamera()
			r.plug()
			r.flows()
			r.audited("unplugged", "swapped", "unplugged", "recovered")
		})
	}
}

// TestAClaimedCameraIsToldAndRecovered: another process streams from it, at the start and later.
func TestAClaimedCameraIsToldAndRecovered(t *testing.T) {
	r := newRig(t, func(r *rig) {
		r.camera.Claim(true)
		r.plug()
	})
	r.until("busy")
	r.shown("busy")
	r.camera.Claim(false)
	r.flows()
	r.audited("busy", "recovered")
	r.camera.Claim(true) // with the next start, that is, after the stream broke
	r.camera.Fail(v4l2test.Dequeue, unix.EIO, 1)
	r.until("busy")
	r.camera.Claim(false)
	r.flows()
	r.audited("busy", "recovered", "busy", "recovered")
}

// TestAResetStormIsToldOnceAndRecovered: a device that resets again and again, as a loose plug makes it, with frames between
// and without.
func TestAResetStormIsToldOnceAndRecovered(t *testing.T) {
	const cycles = 30
	for name, reset := range map[string]func(r *rig){
		"it comes and goes": func(r *rig) {
			for range cycles {
				r.unplug(0)
				r.camera = newCamera()
				r.plug()
				time.Sleep(350 * time.Millisecond) // the driver looks again after 250 ms, if no kernel tells of a device
			}
		},
		"the stream breaks": func(r *rig) {
			for range cycles {
				r.camera.Fail(v4l2test.Dequeue, unix.EIO, 1)
				time.Sleep(60 * time.Millisecond)
			}
		},
		"before its first frame": func(r *rig) {
			for range cycles {
				r.unplug(0)
				r.camera = newCamera()
				r.camera.Quiet = true
				r.plug()
				time.Sleep(200 * time.Millisecond)
			}
			r.camera.Speak()
		},
	} {
		t.Run(name, func(t *testing.T) {
			core.SetStormRules(t, 5, 20*time.Second, 1500*time.Millisecond)
			r := newRig(t, nil)
			r.flows()
			done := make(chan struct{})
			go func() { defer close(done); reset(r) }()
			r.until("unstable")
			r.shown("unstable")
			<-done
			before := r.kinds()
			r.flows()
			kinds := r.kinds()
			n := len(kinds)
			if n == 0 || kinds[n-1] != "recovered" || r.last()["from"] != "unstable" {
				t.Fatalf("the storm does not end with a recovery: %v, %v", kinds, r.last())
			}
			unstable := 0
			for _, k := range kinds {
				if k == "unstable" {
					unstable++
				}
			}
			s := r.sensor()
			if unstable != 1 || n > 12 || len(before) > 11 {
				t.Errorf("%d entries for %d resets, %d of them of a storm: %v", n, s.Falls, unstable, kinds)
			}
			if s.Falls < 5 { // as many as the driver's own pace lets it notice
				t.Errorf("%d falls are counted", s.Falls)
			}
			if v, _ := r.metric("vigil_sensor_falls_total", "sensor=porch"); v != float64(s.Falls) {
				t.Errorf("metrics count %v falls, the status %d", v, s.Falls)
			}
			text, _ := json.Marshal(r.last()) //nolint:errchkjson // a map of the store
			t.Logf("%d resets: %d falls noticed, the driver connected %d times, %d audit entries, %d left out; the end: %s", cycles, s.Falls, s.Camera.Connects, n, s.Unaudited, text)
		})
	}
}

// TestIncidentsAreBoundedWhateverComes: somebody who knows the rules still writes no more than the bound.
func TestIncidentsAreBoundedWhateverComes(t *testing.T) {
	for gap := time.Second; gap < 10*time.Minute; gap = gap * 3 / 2 {
		entries, falls, unaudited := core.PlayIncidents(24*time.Hour, gap)
		if most := 24 + 24*30 + 1; entries > most {
			t.Errorf("a fall every %v: %d entries a day, at most %d", gap, entries, most)
		}
		if entries+int(unaudited) < falls {
			t.Errorf("a fall every %v: %d falls, %d entries, %d left out: some are nowhere", gap, falls, entries, unaudited)
		}
	}
}
