package v4l2

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vigil/sensors"
)

// kernelMessage is as Linux 6.1 sends it when a camera is plugged in.
const kernelMessage = "add@/devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/video4linux/video0\x00ACTION=add\x00" +
	"DEVPATH=/devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/video4linux/video0\x00SUBSYSTEM=video4linux\x00MAJOR=81\x00MINOR=0\x00" +
	"DEVNAME=video0\x00SEQNUM=1234\x00"

func TestUevents(t *testing.T) {
	e, ok := parseUevent([]byte(kernelMessage))
	if !ok || e.action != "add" || e.subsystem != "video4linux" || filepath.Base(e.devPath) != "video0" {
		t.Errorf("%+v %v", e, ok)
	}
	for _, msg := range []string{"", "add", "@/x", "add@", "add@x", "libudev\x00\xfe\xed\xca\xfe", "\x00SUBSYSTEM=video4linux"} {
		if e, ok := parseUevent([]byte(msg)); ok {
			t.Errorf("%q is %+v", msg, e)
		}
	}
}

func FuzzUevent(f *testing.F) {
	f.Add([]byte(kernelMessage))
	f.Add([]byte("remove@/devices/x\x00SUBSYSTEM=usb"))
	f.Add([]byte("libudev\x00\xfe\xed\xca\xfe\x28\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		if e, ok := parseUevent(msg); ok && (e.action == "" || e.devPath == "" || e.devPath[0] != '/' || len(e.subsystem) > len(msg)) {
			t.Errorf("%+v", e)
		}
	})
}

func TestProfilesAreSavedWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "porch.json")
	p := Profile{"exposure": 200, "anti_flicker": 1}
	if err := p.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := LoadProfile(path)
	if err != nil || !maps.Equal(got, p) {
		t.Errorf("%v, %v", got, err)
	}
	if err := (Profile{"shutter": 1}).Save(path); err == nil {
		t.Error("an unknown control was saved")
	}
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
		t.Errorf("left over: %v", files)
	}
	for _, text := range []string{"", "[]", `{"shutter":1}`, `{"gain":4294967296}`, `{"gain":1.5}`} {
		if p, err := parseProfile([]byte(text)); err == nil {
			t.Errorf("%q is %v", text, p)
		}
	}
}

func FuzzProfile(f *testing.F) {
	f.Add([]byte(`{"exposure_auto": 1, "exposure": 200, "anti_flicker": 1}`))
	f.Add([]byte(`{"gain":-1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if p, err := parseProfile(text); err == nil && p.Check() != nil {
			t.Errorf("%v", p)
		}
	})
}

func TestStatesOfErrors(t *testing.T) {
	for err, want := range map[error]State{
		nil: StateRunning, sensors.ErrUnplugged: StateUnplugged, io.EOF: StateFailed, &StateError{State: StateBusy, Err: ErrBusy}: StateBusy,
	} {
		if got := StateOf(err); got != want {
			t.Errorf("%v is %s", err, got)
		}
	}
}

// clocked gives frames at set times, in milliseconds.
type clocked struct {
	at   []int
	out  int
	lent int
}

func (c *clocked) Next(context.Context) (*sensors.Frame, error) {
	if c.out == len(c.at) {
		return nil, io.EOF
	}
	f := &sensors.Frame{Captured: time.Unix(0, 0).Add(time.Duration(c.at[c.out]) * time.Millisecond)}
	c.out++
	c.lent++
	f.Lend(func(*sensors.Frame) { c.lent-- })
	return f, nil
}

func (c *clocked) Close() error { return nil }

func TestPairsMatch(t *testing.T) {
	a, b := &clocked{at: []int{0, 33, 66, 100, 133, 166}}, &clocked{at: []int{40, 70, 101, 170, 200}}
	p, err := NewPair(a, b, 10*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for {
		x, y, err := p.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		got = append(got, int(x.Captured.Sub(time.Unix(0, 0)).Milliseconds()), int(y.Captured.Sub(time.Unix(0, 0)).Milliseconds()))
		x.Release()
		y.Release()
	}
	want := []int{33, 40, 66, 70, 100, 101, 166, 170}
	if len(got) != len(want) || a.lent != 0 || b.lent != 0 || p.Unmatched() != 2 {
		t.Fatalf("pairs %v, %d and %d frames are held, %d without a partner", got, a.lent, b.lent, p.Unmatched())
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("pairs %v, want %v", got, want)
		}
	}
	if _, err := NewPair(a, b, 0); err == nil {
		t.Error("pairs within no time")
	}
}
