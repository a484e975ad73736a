package core_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/daemon/decide"
	"vigil/sensors/synth"
	"vigil/sensors/uart"
	"vigil/sensors/uart/uarttest"
)

// uartSpeed is how many times faster than its baud rate the played line is. VIGIL_UART_SPEED=1 takes the real time, about
// seven minutes.
func uartSpeed(t *testing.T) float64 {
	t.Helper()
	text := os.Getenv("VIGIL_UART_SPEED")
	if text == "" {
		return 40
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// glass is an impression of a finger as the module's sensor sees it, 256 x 288 pixels.
func glass(t testing.TB, finger uint64, touch int) []byte {
	t.Helper()
	made.Lock()
	defer made.Unlock()
	f := made.fingers[finger]
	if f == nil {
		f = must[*synth.Finger](t)(synth.NewFinger(finger, synth.Options{}))
		made.fingers[finger] = f
	}
	o := synth.Preset(synth.Easy)
	o.Width, o.Height = uart.DefaultWidth, uart.DefaultHeight
	return must[*synth.Impression](t)(f.Impression(uint64(touch), o)).Gray
}

// TestAModuleAtASerialLine enrols and identifies generated fingers at a module that is played at a pseudo-terminal, over
// both usual rates, through the real pipeline: with every kind of corrupt packet on the way, and fingers lifted too early.
func TestAModuleAtASerialLine(t *testing.T) {
	speed := uartSpeed(t)
	core.SetUARTTiming(uart.Timing{
		Reply: 1500 * time.Millisecond, Gap: time.Duration(float64(300*time.Millisecond)/speed) + 30*time.Millisecond, Poll: 5 * time.Millisecond, Retry: 20 * time.Millisecond,
	})
	for _, baud := range []int{57600, 115200} {
		t.Run(fmt.Sprint(baud), func(t *testing.T) {
			m, err := uarttest.New(uarttest.Options{Baud: baud, Speed: speed, Password: 0xFEED})
			if err != nil {
				t.Skip(err)
			}
			defer m.Close()
			d := daemontest.New(t)
			d.Config.Models.Face = "off"
			d.Config.Policy.FrameDeadline = config.Duration(time.Minute)
			d.Config.Policy.EnrollTimeout = config.Duration(5 * time.Minute)
			a := d.Open(t)
			defer closeApp(t, a)
			ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
			defer cancel()
			if err := a.Start(ctx); err != nil {
				t.Fatal(err)
			}
			reader := config.Sensor{
				Name: "reader", Driver: config.DriverUART, Modality: core.Finger, Path: m.Path(), Baud: baud, Password: 0xFEED,
			}
			if err := a.AddSensor(ctx, reader); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			enrol := func(name string, finger uint64) string {
				t.Helper()
				go func() {
					for range 2 { // that the enrolment has begun is known when it takes the sensor
						time.Sleep(50 * time.Millisecond)
					}
					for i := range 3 {
						m.Put(uarttest.Touch{Gray: glass(t, finger, i)})
					}
				}()
				e := must[core.Enrolled](t)(a.EnrollPersonAt(ctx, core.Person{Name: name}, "reader"))
				for m.State().Left > 0 { // a touch more than was needed is decided like any other
					time.Sleep(5 * time.Millisecond)
				}
				return e.Subject
			}
			ann, bob := enrol("Ann", annIndex), enrol("Bob", bobIndex)
			time.Sleep(200 * time.Millisecond)
			w := a.Watch()
			defer w.Stop()
			identify := func(what string, subject string, touch uarttest.Touch) {
				t.Helper()
				m.Put(touch)
				select {
				case dec := <-w.C:
					if dec.Subject != subject || (dec.Outcome == decide.Match) != (subject != "") || dec.Sensor != "reader" {
						t.Errorf("%s: %+v", what, dec)
					}
				case <-ctx.Done():
					t.Fatalf("%s: no decision; %+v", what, a.Status().Sensors)
				}
			}
			identify("Ann", ann, uarttest.Touch{Gray: glass(t, annIndex, 10)})
			identify("Bob", bob, uarttest.Touch{Gray: glass(t, bobIndex, 10)})
			identify("a stranger", "", uarttest.Touch{Gray: glass(t, stranger, 10)})
			touches := 3
			for name, damage := range uarttest.Damages {
				m.Break(uarttest.Fault{Packet: touches * 17 % 288, Damage: damage})
				identify("Ann with "+name, ann, uarttest.Touch{Gray: glass(t, annIndex, 11)})
				touches++
			}
			m.Put(uarttest.Touch{Gray: glass(t, annIndex, 12), Gone: true}, uarttest.Touch{Gray: glass(t, annIndex, 12), Vanishes: true})
			identify("Bob behind fingers that were lifted too early", bob, uarttest.Touch{Gray: glass(t, bobIndex, 11)})
			s, state := a.Status().Sensors[0], m.State()
			if len(w.C) != 0 || s.Skipped != 2 || s.Stale != 0 || s.Malformed != 0 || s.State != "running" || state.FaultsLeft != 0 {
				t.Errorf("%d decisions too many, %+v, %d faults left", len(w.C), s, state.FaultsLeft)
			}
			if mod := s.Module; mod == nil || mod.Baud != baud || mod.Touches == 0 || mod.Lost != 2 || mod.Again == 0 || len(mod.Damage) < 3 {
				t.Errorf("the status of the line is %+v", s.Module)
			} else {
				r := rig{t: t, app: a}
				if v, ok := r.metric("vigil_module_events_total", "sensor=reader", "event=touch"); !ok || v < float64(mod.Touches) {
					t.Errorf("metrics count %v touches of %d", v, mod.Touches)
				}
				if v, ok := r.metric("vigil_module_baud", "sensor=reader"); !ok || v != float64(baud) {
					t.Errorf("metrics say %v baud", v)
				}
				for kind := range mod.Damage {
					if v, ok := r.metric("vigil_module_damaged_packets_total", "sensor=reader", "damage="+kind); !ok || v == 0 {
						t.Errorf("metrics have no packets damaged by %s", kind)
					}
				}
			}
			t.Logf("%d baud: %d touches, %d pictures sent, %.1f s on the line in %.1f s (%gx)", baud, state.Taken, state.Commands[0x0A],
				state.LineTime.Seconds(), time.Since(begun).Seconds(), speed)
		})
	}
}
