package wiegand

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"vigil/actuators"
)

// wire records edges in its own time.
type wire struct {
	now   time.Duration
	edges []edge
	fail  int // this edge fails; 0: none
}

type edge struct {
	line   int
	active bool
	at     time.Duration
}

type fakeLine struct {
	w *wire
	n int
}

func (l fakeLine) Set(active bool) error {
	l.w.edges = append(l.w.edges, edge{l.n, active, l.w.now})
	if len(l.w.edges) == l.w.fail {
		return errors.New("bus error")
	}
	return nil
}

// read is what a controller makes of the edges: the bits, and that every pulse is 50 us and every period 2 ms.
func (w *wire) read(t *testing.T) (bits string) {
	t.Helper()
	for i := 0; i+1 < len(w.edges); i += 2 {
		on, off := w.edges[i], w.edges[i+1]
		if !on.active || off.active || on.line != off.line || off.at-on.at != 50*time.Microsecond {
			t.Fatalf("pulse %d: %+v %+v", i/2, on, off)
		}
		if i > 0 && on.at-w.edges[i-2].at != 2*time.Millisecond {
			t.Errorf("pulse %d comes %v behind the one before", i/2, on.at-w.edges[i-2].at)
		}
		bits += fmt.Sprint(on.line)
	}
	return bits
}

func TestFramesOnTheWire(t *testing.T) {
	for _, c := range []struct {
		bits           int
		facility, card uint64
		want           string
	}{
		// Even parity over the first half, facility, card, odd parity over the second, counted by hand.
		{26, 0, 1, "0" + "00000000" + "0000000000000001" + "0"},
		{26, 1, 1, "1" + "00000001" + "0000000000000001" + "0"},
		{26, 255, 65535, "0" + "11111111" + "1111111111111111" + "1"},
		{26, 17, 1234, "0" + "00010001" + "0000010011010010" + "0"},
		{26, 3, 4096, "1" + "00000011" + "0001000000000000" + "1"},
		{34, 1, 1, "1" + "0000000000000001" + "0000000000000001" + "0"},
		{34, 65535, 3, "0" + "1111111111111111" + "0000000000000011" + "1"},
	} {
		w := &wire{}
		wg, err := New(fakeLine{w, 0}, fakeLine{w, 1}, Options{Bits: c.bits, Facility: c.facility, Wait: func(d time.Duration) { w.now += d }})
		if err != nil {
			t.Fatal(err)
		}
		w.edges = nil // of coming to rest
		if err := wg.Actuate(t.Context(), actuators.Grant{Card: c.card}); err != nil {
			t.Fatal(err)
		}
		if got := w.read(t); got != c.want {
			t.Errorf("%d bits, facility %d, card %d: %s, want %s", c.bits, c.facility, c.card, got, c.want)
		}
		if want := time.Duration(c.bits)*2*time.Millisecond + 50*time.Millisecond; w.now != want {
			t.Errorf("a frame takes %v, want %v", w.now, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	w := &wire{}
	wg, err := New(fakeLine{w, 0}, fakeLine{w, 1}, Options{Bits: 26, Wait: func(time.Duration) {}})
	if err != nil {
		t.Fatal(err)
	}
	w.edges = nil
	if err := wg.Actuate(t.Context(), actuators.Grant{}); !errors.Is(err, actuators.ErrNoCard) {
		t.Errorf("no card: %v", err)
	}
	if err := wg.Actuate(t.Context(), actuators.Grant{Card: 70000}); err == nil {
		t.Error("a card of 17 bits is sent")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := wg.Actuate(ended, actuators.Grant{Card: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
	if len(w.edges) != 0 {
		t.Errorf("the lines moved: %v", w.edges)
	}
	w.fail = 5
	if err := wg.Actuate(t.Context(), actuators.Grant{Card: 1}); err == nil || w.edges[len(w.edges)-1].active {
		t.Errorf("a line that fails: %v, %+v", err, w.edges)
	}
	if err := errors.Join(wg.Close(), wg.Close()); err != nil {
		t.Error(err)
	}
	if err := wg.Actuate(t.Context(), actuators.Grant{Card: 1}); err == nil {
		t.Error("it sends after Close")
	}
	for _, o := range []Options{{Bits: 25}, {Bits: 26, Facility: 256}, {Bits: 34, Facility: 65536}, {Bits: 26, Timing: Timing{Pulse: time.Second}}} {
		if _, err := New(fakeLine{w, 0}, fakeLine{w, 1}, o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}
