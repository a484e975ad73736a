package osdp_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"

	"go.bug.st/serial"

	"vigil/actuators"
	"vigil/actuators/osdp"
	"vigil/actuators/osdp/osdptest"
	"vigil/sensors/uart/uarttest"
)

var key = [16]byte{0x1F, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

var identity = osdp.Identity{Vendor: [3]byte{0x5A, 0x1B, 0x2C}, Model: 7, Version: 2, Serial: [4]byte{1, 2, 3, 4}, Firmware: [3]byte{1, 0, 9}}

// start connects a panel and a peripheral by a pseudo-terminal; nothing of either may be left in the end.
func start(t *testing.T, k *[16]byte) (*osdptest.Panel, *osdp.Reader) {
	t.Helper()
	before := runtime.NumGoroutine()
	pty, err := uarttest.OpenPTY()
	if err != nil {
		t.Skip(err)
	}
	port, err := serial.Open(pty.Path, &serial.Mode{BaudRate: 115200})
	if err != nil {
		t.Fatal(err)
	}
	r, err := osdp.Serve(port, osdp.Options{Address: 5, Identity: identity, Key: k, Bits: 26, Facility: 17, Life: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 2 {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		pty.Close()
		for limit := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
			}
		}
	})
	return &osdptest.Panel{Port: pty.Master, Address: 5, Key: key}, r
}

// expect sends a command and wants this reply.
func expect(t *testing.T, p *osdptest.Panel, code byte, want []byte, command byte, data ...byte) {
	t.Helper()
	c, got, err := p.Do(command, data...)
	if err != nil || c != code || want != nil && !bytes.Equal(got, want) {
		t.Errorf("command %#02x: %#02x % x, %v; want %#02x % x", command, c, got, err, code, want)
	}
}

// grant lets a card wait and polls until it comes.
func grant(t *testing.T, p *osdptest.Panel, r *osdp.Reader) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- r.Actuate(t.Context(), actuators.Grant{Decision: "d", Card: 1234}) }()
	want := frame26(17, 1234)
	for limit := time.Now().Add(time.Second); ; {
		code, data, err := p.Do(0x60)
		if err != nil || time.Now().After(limit) {
			t.Fatalf("no card: %#02x, %v", code, err)
		}
		if code == 0x50 {
			if !bytes.Equal(data, want) {
				t.Errorf("card % x, want % x", data, want)
			}
			break
		}
	}
	expect(t, p, 0x40, nil, 0x60) // the panel goes on: the card has arrived, once
	if err := <-done; err != nil {
		t.Errorf("actuate: %v", err)
	}
}

// frame26 is the reply RAW of a 26-bit card, bit by bit.
func frame26(facility, card int) []byte {
	var bits []int
	for i := 7; i >= 0; i-- {
		bits = append(bits, facility>>i&1)
	}
	for i := 15; i >= 0; i-- {
		bits = append(bits, card>>i&1)
	}
	even, odd := 0, 1
	for i, b := range bits {
		if i < 12 {
			even ^= b
		} else {
			odd ^= b
		}
	}
	bits = append(append([]int{even}, bits...), odd)
	out := []byte{0, 1, 26, 0, 0, 0, 0, 0}
	for i, b := range bits {
		out[4+i/8] |= byte(b << (7 - i%8))
	}
	return out
}

var pdid = []byte{0x5A, 0x1B, 0x2C, 7, 2, 1, 2, 3, 4, 1, 0, 9}

func TestPlain(t *testing.T) {
	for _, sum := range []bool{false, true} {
		p, r := start(t, nil)
		p.Checksum = sum
		expect(t, p, 0x40, []byte{}, 0x60)
		expect(t, p, 0x45, pdid, 0x61, 0)
		expect(t, p, 0x46, nil, 0x62, 0)
		expect(t, p, 0x48, []byte{0, 0}, 0x64)
		expect(t, p, 0x40, []byte{}, 0x6A, 0, 2, 1, 1, 1)
		expect(t, p, 0x41, []byte{3}, 0x75, 1, 2, 3) // KEYSET is refused
		grant(t, p, r)
		if err := p.Open(); err == nil {
			t.Error("a peripheral without a key opens a channel")
		}
	}
}

func TestSecureChannel(t *testing.T) {
	p, r := start(t, &key)
	expect(t, p, 0x45, pdid, 0x61, 0) // who is there may be asked in clear
	expect(t, p, 0x41, []byte{6}, 0x64)
	if err := p.Open(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p.ClientUID, []byte{0x5A, 0x1B, 7, 2, 1, 2, 3, 4}) {
		t.Errorf("client id % x", p.ClientUID)
	}
	for range 10 {
		expect(t, p, 0x40, []byte{}, 0x60)
		expect(t, p, 0x45, pdid, 0x61, 0)
		expect(t, p, 0x40, []byte{}, 0x69, make([]byte, 14)...)
		expect(t, p, 0x40, []byte{}, 0x6A, make([]byte, 16)...) // whole blocks are padded too
	}
	grant(t, p, r)
	if s := r.Stats(); s.Sessions != 1 || !s.Secure || s.BadMAC != 0 {
		t.Errorf("%+v", s)
	}
	if err := p.Open(); err != nil {
		t.Errorf("a second channel: %v", err)
	}
	grant(t, p, r)
}

// TestWrongKeys: another key, the key that everybody knows, and a cryptogram that was made up.
func TestWrongKeys(t *testing.T) {
	p, r := start(t, &key)
	p.Key[3] ^= 1
	if err := p.Open(); err == nil {
		t.Error("another key opens a channel")
	}
	if err := p.Forge(); err == nil {
		t.Error("a cryptogram of zeros opens a channel")
	}
	p.Default = true
	if err := p.Open(); err == nil {
		t.Error("SCBK-D opens a channel")
	}
	if s := r.Stats(); s.Sessions != 0 || s.Secure {
		t.Errorf("%+v", s)
	}
	p.Key, p.Default = key, false
	if err := p.Open(); err != nil {
		t.Errorf("the right key behind them: %v", err)
	}
	known := [16]byte([]byte("0123456789:;<=>?"))
	if _, err := osdp.Serve(nil, osdp.Options{Bits: 26, Key: &known}); err == nil {
		t.Error("SCBK-D is taken as the key")
	}
}

// TestNoCardLeavesWithoutTheChannel: a peripheral with a key gives none to a panel that speaks in clear.
func TestNoCardLeavesWithoutTheChannel(t *testing.T) {
	p, r := start(t, &key)
	done := make(chan error, 1)
	go func() { done <- r.Actuate(t.Context(), actuators.Grant{Card: 1}) }()
	for {
		select {
		case err := <-done:
			if !errors.Is(err, osdp.ErrNotFetched) {
				t.Errorf("actuate: %v", err)
			}
			return
		default:
			expect(t, p, 0x40, []byte{}, 0x60)
		}
	}
}

// TestAttacksOnTheChannel: each closes the channel and moves nothing; the panel must set it up anew.
func TestAttacksOnTheChannel(t *testing.T) {
	reseal := func(b []byte) []byte { // with a CRC that fits, as an attacker makes it
		c := uint16(0x1D0F)
		for _, v := range b[:len(b)-2] {
			c ^= uint16(v) << 8
			for range 8 {
				if c&0x8000 != 0 {
					c = c<<1 ^ 0x1021
				} else {
					c <<= 1
				}
			}
		}
		return append(b[:len(b)-2], byte(c), byte(c>>8))
	}
	for name, attack := range map[string]func(t *testing.T, p *osdptest.Panel) (byte, []byte, error){
		"a replayed frame": func(_ *testing.T, p *osdptest.Panel) (byte, []byte, error) {
			old := slices.Clone(p.Sent)
			for range 3 { // until its sequence number is the right one again
				p.Do(0x60) //nolint:errcheck // what counts is the reply to the old one
			}
			return p.Again(old)
		},
		"a frame of another session": func(t *testing.T, p *osdptest.Panel) (byte, []byte, error) {
			old := slices.Clone(p.Sent)
			if err := p.Open(); err != nil {
				t.Fatal(err)
			}
			p.Do(0x60) //nolint:errcheck // so that its sequence number fits
			return p.Again(old)
		},
		"an altered command": func(_ *testing.T, p *osdptest.Panel) (byte, []byte, error) {
			p.Bend = func(b []byte) []byte { b[7] = 0x64; return reseal(b) }
			return p.Do(0x60)
		},
		"an altered MAC": func(_ *testing.T, p *osdptest.Panel) (byte, []byte, error) {
			p.Bend = func(b []byte) []byte { b[len(b)-3] ^= 1; return reseal(b) }
			return p.Do(0x60)
		},
		"altered data": func(_ *testing.T, p *osdptest.Panel) (byte, []byte, error) {
			p.Bend = func(b []byte) []byte { b[10] ^= 1; return reseal(b) }
			return p.Do(0x69, make([]byte, 14)...)
		},
		"without its MAC": func(_ *testing.T, p *osdptest.Panel) (byte, []byte, error) {
			p.Bend = func(b []byte) []byte { b[2] -= 4; return reseal(b[:len(b)-4]) }
			return p.Do(0x60)
		},
		"in clear": func(_ *testing.T, p *osdptest.Panel) (byte, []byte, error) {
			p.Bend = func(b []byte) []byte { return reseal([]byte{0x53, b[1], 8, 0, b[4] &^ 8, 0x60, 0, 0}) }
			return p.Do(0x60)
		},
		"out of order": func(_ *testing.T, p *osdptest.Panel) (byte, []byte, error) {
			p.SkipTo(3)
			return p.Do(0x60)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, r := start(t, &key)
			if err := p.Open(); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				expect(t, p, 0x40, []byte{}, 0x60)
			}
			code, data, err := attack(t, p)
			if err != nil || code != 0x41 {
				t.Errorf("answered with %#02x % x, %v", code, data, err)
			}
			if s := r.Stats(); s.Secure || s.Refused == 0 {
				t.Errorf("the channel is still open: %+v", s)
			}
			p.Bend = nil
			if err := p.Open(); err != nil {
				t.Errorf("a new channel: %v", err)
			}
			grant(t, p, r)
		})
	}
}

// TestTruncatedFrames: every prefix of a frame gets no answer, and the next whole one is understood.
func TestTruncatedFrames(t *testing.T) {
	for n := 1; n < 14; n++ {
		pd := osdp.NewPeripheral(5, identity, nil)
		p := &osdptest.Panel{Port: tape{pd}, Address: 5, Patience: time.Millisecond}
		p.Bend = func(b []byte) []byte { return b[:min(n, len(b)-1)] }
		if code, _, err := p.Do(0x61, 0); !errors.Is(err, osdptest.ErrSilence) {
			t.Errorf("%d bytes of a frame: %#02x, %v", n, code, err)
		}
		if s := pd.Stats(); s.Frames != 0 {
			t.Errorf("%d bytes: %+v", n, s)
		}
	}
	p, _ := start(t, nil)
	p.Patience = 30 * time.Millisecond
	p.Bend = func(b []byte) []byte { return b[:6] }
	if _, _, err := p.Do(0x60); !errors.Is(err, osdptest.ErrSilence) {
		t.Error(err)
	}
	time.Sleep(250 * time.Millisecond) // the line is silent: what is left is thrown away
	p.Bend, p.Patience = nil, 0
	p.Reset()
	expect(t, p, 0x40, []byte{}, 0x60)
}

// tape is a line to a peripheral without time.
type tape struct{ pd *osdp.Peripheral }

func (l tape) Write(b []byte) (int, error)   { l.pd.Handle(b, time.Now()); return len(b), nil }
func (tape) Read([]byte) (int, error)        { return 0, context.DeadlineExceeded }
func (tape) SetReadDeadline(time.Time) error { return nil }

// TestARepeatedCommandIsNotExecutedAgain: a panel that lost a reply asks again and gets the same card, once.
func TestARepeatedCommandIsNotExecutedAgain(t *testing.T) {
	p, r := start(t, &key)
	if err := p.Open(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.Actuate(t.Context(), actuators.Grant{Card: 1234}) }()
	for {
		code, _, err := p.Do(0x60)
		if err != nil {
			t.Fatal(err)
		}
		if code == 0x50 {
			break
		}
	}
	first := slices.Clone(p.LastReply)
	if _, _, err := p.Again(p.Sent); err != nil || !bytes.Equal(p.LastReply, first) {
		t.Errorf("the repeated command gets % x, %v; want % x", p.LastReply, err, first)
	}
	select {
	case err := <-done:
		t.Errorf("a repeat counts as an acknowledgement: %v", err)
	default:
	}
	expect(t, p, 0x40, []byte{}, 0x60)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if s := r.Stats(); s.Repeated != 1 || !s.Secure {
		t.Errorf("%+v", s)
	}
}

func TestASilentPanelLosesItsChannel(t *testing.T) {
	pd := osdp.NewPeripheral(5, identity, nil)
	now := time.Unix(1000, 0)
	poll := func(seq byte) []byte {
		p := &osdptest.Panel{Port: tape{osdp.NewPeripheral(1, identity, nil)}, Address: 5, Patience: time.Millisecond}
		p.SkipTo(seq)
		p.Do(0x60) //nolint:errcheck // only for its bytes
		return p.Sent
	}
	for seq := range byte(3) {
		if _, reply := pd.Handle(poll(seq), now); reply == nil || reply[5] != 0x40 {
			t.Fatalf("sequence %d: % x", seq, reply)
		}
	}
	if _, reply := pd.Handle(poll(3), now.Add(osdp.SessionLife+time.Second)); reply == nil || reply[5] != 0x41 {
		t.Errorf("behind the time: % x", reply)
	}
	if _, reply := pd.Handle(poll(0), now.Add(osdp.SessionLife+2*time.Second)); reply == nil || reply[5] != 0x40 {
		t.Errorf("anew: % x", reply)
	}
}

func TestCardsThatWaitAreBounded(t *testing.T) {
	_, r := start(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error, 8)
	for range 8 {
		go func() { results <- r.Actuate(ctx, actuators.Grant{Card: 1}) }()
	}
	for range 4 {
		if err := <-results; !errors.Is(err, osdp.ErrFull) {
			t.Error(err)
		}
	}
	cancel()
	for range 4 {
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	if err := r.Actuate(t.Context(), actuators.Grant{}); !errors.Is(err, actuators.ErrNoCard) {
		t.Error(err)
	}
}

// FuzzHandle: nothing on the line may panic, stall or open a channel.
func FuzzHandle(f *testing.F) {
	p := &osdptest.Panel{Port: tape{osdp.NewPeripheral(5, identity, nil)}, Address: 5, Key: key, Patience: time.Nanosecond}
	for _, c := range []byte{0x60, 0x61, 0x62, 0x64, 0x69} {
		p.Do(c, 0) //nolint:errcheck // only for its bytes
		f.Add(slices.Clone(p.Sent))
		f.Add(p.Sent[:len(p.Sent)-2])
	}
	p.Open() //nolint:errcheck // likewise
	f.Add(slices.Clone(p.Sent))
	f.Add([]byte{0x53, 5, 12, 0, 0x0C, 2, 0x15, 0x60, 1, 2, 3, 4, 0, 0})
	f.Fuzz(func(t *testing.T, line []byte) {
		for _, k := range []*[16]byte{nil, &key} {
			pd := osdp.NewPeripheral(5, identity, k)
			now := time.Unix(1, 0)
			for rest := line; len(rest) > 0; {
				n, reply := pd.Handle(rest, now)
				if n < 0 || n > len(rest) || reply != nil && (reply[0] != 0x53 || reply[1] != 0x85 || n == 0) {
					t.Fatalf("%d bytes taken, reply % x", n, reply)
				}
				if n == 0 {
					break
				}
				rest = rest[n:]
			}
			if s := pd.Stats(); s.Secure || s.Sessions != 0 {
				t.Fatalf("a channel was opened: %+v", s)
			}
		}
	})
}
