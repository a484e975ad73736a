package v4l2

import (
	"testing"
	"time"

	"vigil/sensors"
	"vigil/sensors/v4l2/v4l2test"
)

// bench is a played machine with the driver on it.
type bench struct {
	t *testing.T
	*v4l2test.Machine
	kernel Kernel
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, Machine: v4l2test.NewMachine(t.TempDir())}
	b.kernel = Kernel{Sys: b.Sys, Dev: "/dev", Open: func(path string) (Node, uint64, error) { return b.Open(path) }}
	return b
}

func (b *bench) plug(number int, port, usb, serial, card string, k *v4l2test.Camera) {
	b.t.Helper()
	b.must(b.Plug(number, port, usb, serial, card, k))
}

func (b *bench) unplug(number int) {
	b.t.Helper()
	b.must(b.Unplug(number))
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

const porch = v4l2test.Place

// source opens the camera in port 1 with these changes.
func (b *bench) source(change func(*Options)) *Source {
	b.t.Helper()
	o := Options{Name: "porch", Pin: Pin{Place: porch}, Timeout: 20 * time.Millisecond}
	if change != nil {
		change(&o)
	}
	s, err := b.kernel.Camera(o)
	b.must(err)
	b.t.Cleanup(func() { b.must(s.Close()) })
	return s
}

func mustNext(t *testing.T, s sensors.Source) *sensors.Frame {
	t.Helper()
	f, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return f
}
