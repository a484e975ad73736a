package core_test

import (
	"fmt"
	"image"
	"sync"
	"testing"
	"time"

	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/daemon/decide"
	"vigil/infer/infertest/fake"
	"vigil/sensors"
	"vigil/sensors/fault"
	"vigil/sensors/v4l2"
	"vigil/sensors/v4l2/v4l2test"
)

// shown is a picture of the fake models' person, as large as the camera's.
func shown(t *testing.T, person int) image.Image {
	t.Helper()
	small := decodePhoto(t, fake.Picture(t, person, true, true, 5))
	im := image.NewNRGBA(image.Rect(0, 0, canvasW, canvasH))
	for j := range canvasH {
		for i := range canvasW {
			im.Set(i, j, small.At(i*320/canvasW, j*320/canvasH))
		}
	}
	return im
}

// TestFaultsLoseNoDecision: people come and go before a camera whose frames are lost, late, corrupt and cut, which is
// unplugged and whose driver fails. Everybody who comes is decided, once, and rightly; the store agrees.
func TestFaultsLoseNoDecision(t *testing.T) {
	for name, c := range map[string]struct{ format, code, script string }{
		"drop":    {"yuyv", "YUYV", "drop 3- chance 0.5"},
		"stall":   {"yuyv", "YUYV", "stall 10- every 15 for 300ms"},
		"corrupt": {"yuyv", "YUYV", "corrupt 3- every 2 bytes 5000"},
		"unplug":  {"yuyv", "YUYV", "unplug 10- every 25 for 150ms"},
		"fail":    {"yuyv", "YUYV", "fail 60"},
		"all":     {"yuyv", "YUYV", "drop 3- chance 0.3\nstall 10- every 40 for 200ms\ncorrupt 3- every 3 bytes 3000\nunplug 20- every 50 for 100ms\nfail 150"},
		"mjpeg":   {"mjpeg", "MJPG", "corrupt 3- every 3 bytes 400\ncut 4- every 3 bytes 20000\ndrop 5- chance 0.2"},
	} {
		t.Run(name, func(t *testing.T) {
			script, err := fault.Parse(c.script)
			if err != nil {
				t.Fatal(err)
			}
			m, k := v4l2test.NewMachine(t.TempDir()), newCamera()
			k.Code, k.W, k.H = c.code, canvasW, canvasH
			picture := func(im image.Image) []byte {
				y, u, v := yuv(im)
				if c.code == "MJPG" {
					return asMJPEG(t, y, u, v)
				}
				return asYUYV(y, u, v)
			}
			black := picture(image.NewNRGBA(image.Rect(0, 0, canvasW, canvasH))) // transparent is black: nobody is there
			if c.code == "MJPG" {
				k.Length = 1 << 20
			}
			k.Show(black)
			if err := m.Plug(0, "1", pinnedUSB, pinnedSerial, pinnedCard, k); err != nil {
				t.Fatal(err)
			}
			core.SetCameraKernel(t, v4l2.Kernel{Sys: m.Sys, Dev: "/dev", Open: func(path string) (v4l2.Node, uint64, error) { return m.Open(path) }})
			d := daemontest.NewFake(t, fake.New(), fake.Manifest("fake", false))
			d.Config.Policy.EventHold = config.Duration(400 * time.Millisecond)
			d.Config.Policy.UnknownFrames = 16
			var mu sync.Mutex
			var made []*fault.Source
			d.Source = func(_ config.Sensor, src sensors.Source) sensors.Source {
				mu.Lock()
				defer mu.Unlock()
				f := fault.New(src, fault.Options{Script: script, Seed: 7})
				made = append(made, f)
				return f
			}
			a := d.Open(t)
			defer closeApp(t, a)
			ids := map[int]string{}
			for p := 1; p <= 4; p++ {
				ids[p] = must[core.Enrolled](t)(a.Enroll(t.Context(), fmt.Sprint("person ", p),
					[][]byte{fake.Picture(t, p, true, true, 1), fake.Picture(t, p, true, true, 2)})).Subject
			}
			w := atThePorch(t, a, c.format)
			const visits = 8
			decisions := 0
			for i := range visits {
				p := 1 + i%4
				k.Show(picture(shown(t, p)))
				select {
				case dec := <-w.C:
					decisions++
					if dec.Outcome != decide.Match || dec.Subject != ids[p] {
						t.Errorf("visit %d of person %d: %+v", i, p, dec)
					}
				case <-time.After(20 * time.Second):
					t.Fatalf("visit %d of person %d is lost: %+v", i, p, a.Status().Sensors[0])
				}
				k.Show(black)
				time.Sleep(800 * time.Millisecond)
			}
			for len(w.C) > 0 {
				t.Errorf("a decision too many: %+v", <-w.C)
			}
			if n := len(a.AuditOf(t, "decision")); n != decisions {
				t.Errorf("%d decisions, %d of them in the audit log", decisions, n)
			}
			mu.Lock()
			defer mu.Unlock()
			var sum fault.Stats
			for _, f := range made {
				s := f.Stats()
				sum.Frames, sum.Dropped, sum.Stalled = sum.Frames+s.Frames, sum.Dropped+s.Dropped, sum.Stalled+s.Stalled
				sum.Corrupted, sum.Unplugged, sum.Failed = sum.Corrupted+s.Corrupted, sum.Unplugged+s.Unplugged, sum.Failed+s.Failed
			}
			s := a.Status().Sensors[0]
			if sum.Dropped+sum.Stalled+sum.Corrupted+sum.Unplugged+sum.Failed == 0 {
				t.Error("nothing went wrong")
			}
			if c.code == "MJPG" && s.Skipped == 0 {
				t.Error("no broken picture was passed over")
			}
			if sum.Failed > 0 && len(made) < 2 {
				t.Error("a source that failed was not opened anew")
			}
			t.Logf("%d visits, %d decisions; faults %+v; frames %d, skipped %d, malformed %d, stale %d, falls %d, audited %d troubles", visits, decisions, sum, s.Frames, s.Skipped, s.Malformed, s.Stale, s.Falls, len(a.AuditOf(t, "sensor.")))
		})
	}
}
