package uart_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.bug.st/serial"

	"vigil/sensors"
	"vigil/sensors/uart"
	"vigil/sensors/uart/uarttest"
)

// quick are times for a module that takes none.
var quick = uart.Timing{Reply: 200 * time.Millisecond, Gap: 30 * time.Millisecond, Poll: time.Millisecond, Retry: 5 * time.Millisecond}

// small pictures, of the width of a real one.
const width, height = 256, 16

func picture(seed byte) []byte {
	p := make([]byte, width*height)
	for i := range p {
		p[i] = (byte(i)*7 + byte(i>>8)*31 + seed) & 0xF0 // what 4 bits can hold
	}
	return p
}

// start makes a module and a reader for it; in the end nothing of either may be left.
func start(t *testing.T, m uarttest.Options, o uart.Options) (*uarttest.Module, *uart.Source) {
	t.Helper()
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	module, err := uarttest.New(m)
	if err != nil {
		t.Skipf("no pseudo-terminal here: %v", err)
	}
	o.Name, o.Width, o.Height = "reader", width, height
	if o.Path == "" {
		o.Path = module.Path()
	}
	if o.Timing == (uart.Timing{}) {
		o.Timing = quick
	}
	source, err := uart.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := source.Close(); err != nil {
			t.Error(err)
		}
		if _, err := source.Next(context.Background()); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Next after Close: %v", err)
		}
		module.Close()
		for limit := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > goroutines || descriptors(t) > files; time.Sleep(time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("%d goroutines and %d descriptors, before %d and %d: %v", runtime.NumGoroutine(), descriptors(t), goroutines, files, open())
			}
		}
	})
	return module, source
}

// open is what the descriptors lead to.
func open() (list []string) {
	links, err := filepath.Glob("/proc/self/fd/*")
	for _, l := range links {
		to, _ := os.Readlink(l) // one that has just gone
		list = append(list, to)
	}
	return append(list, fmt.Sprint(err))
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc/self/fd here")
	}
	return len(list)
}

func next(t *testing.T, s *uart.Source) (*sensors.Frame, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return s.Next(ctx)
}

// expect takes a frame that must show this picture.
func expect(t *testing.T, s *uart.Source, seq uint64, seed byte) {
	t.Helper()
	f, err := next(t, s)
	if err != nil {
		t.Fatalf("touch %d: %v; %+v", seq, err, s.Stats())
	}
	defer f.Release()
	want := picture(seed)
	for i, v := range want {
		want[i] = v >> 4 * 17
	}
	if f.Seq != seq || f.Format != sensors.Gray8 || f.Width != width || f.Height != height || f.Sensor != "reader" || !bytes.Equal(f.Planes[0].Data, want) {
		t.Errorf("touch %d: frame %d of %q, %v, %d x %d, right picture: %v", seq, f.Seq, f.Sensor, f.Format, f.Width, f.Height, bytes.Equal(f.Planes[0].Data, want))
	}
}

func touch(seed byte) uarttest.Touch { return uarttest.Touch{Gray: picture(seed)} }

func TestEveryTouchOnce(t *testing.T) {
	for _, bytes := range []int{32, 64, 128, 256} {
		m, s := start(t, uarttest.Options{PacketBytes: bytes}, uart.Options{Baud: 57600})
		const touches = 20
		for i := range byte(touches) {
			m.Put(touch(i))
		}
		for i := range byte(touches) {
			expect(t, s, uint64(i)+1, i)
		}
		if st := s.Stats(); st.Touches != touches || st.Lost != 0 || len(st.Damage) != 0 || st.Again != 0 || st.Baud != 57600 {
			t.Errorf("packets of %d bytes: %+v", bytes, st)
		}
	}
}

func TestAFingerThatStaysIsOneTouch(t *testing.T) {
	m, s := start(t, uarttest.Options{}, uart.Options{Baud: 57600})
	m.Put(uarttest.Touch{Gray: picture(1), Looks: 50}, touch(2))
	expect(t, s, 1, 1)
	expect(t, s, 2, 2)
	if st := m.State(); st.Commands[0x0A] != 2 || st.Commands[0x01] < 50 {
		t.Errorf("pictures were fetched %d times in %d looks", st.Commands[0x0A], st.Commands[0x01])
	}
}

// TestCorruptPackets: every kind of damage, to packets in the middle, to the last and to the first, is mended by asking
// again; the frame is whole.
func TestCorruptPackets(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(uarttest.Damages)) {
		t.Run(name, func(t *testing.T) {
			m, s := start(t, uarttest.Options{}, uart.Options{Baud: 57600})
			last := width*height/2/128 - 1
			for i, packet := range []int{0, 5, last} {
				m.Break(uarttest.Fault{Packet: packet, Damage: uarttest.Damages[name]})
				m.Put(touch(byte(i)))
				expect(t, s, uint64(i)+1, byte(i))
			}
			m.Put(touch(77)) // an end that came twice is still on the line
			expect(t, s, 4, 77)
			st := s.Stats()
			if m.State().FaultsLeft != 0 || st.Lost != 0 {
				t.Errorf("%+v, %d faults were not played", st, m.State().FaultsLeft)
			}
			noticed := len(st.Damage) > 0
			if harmless := name == "early end" || name == "late end"; !noticed && !harmless {
				t.Errorf("nothing was noticed: %+v", st)
			}
			t.Logf("noticed as %v, asked again %d times", st.Damage, st.Again)
		})
	}
}

// TestCorruptReplies: the same to an acknowledgement.
func TestCorruptReplies(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(uarttest.Damages)) {
		t.Run(name, func(t *testing.T) {
			m, s := start(t, uarttest.Options{}, uart.Options{Baud: 57600})
			m.Put(touch(1))
			expect(t, s, 1, 1)
			for i := range byte(3) {
				m.Break(uarttest.Fault{Reply: true, Damage: uarttest.Damages[name]})
				m.Put(touch(2 + i))
				expect(t, s, uint64(i)+2, 2+i)
			}
			if m.State().FaultsLeft != 0 {
				t.Error("a fault was not played")
			}
		})
	}
}

func TestALineThatStaysDamagedLosesTheTouchAndSaysSo(t *testing.T) {
	m, s := start(t, uarttest.Options{}, uart.Options{Baud: 57600})
	m.Break(slices.Repeat([]uarttest.Fault{{Packet: 3, Damage: uarttest.FlipData}}, 3)...)
	m.Put(touch(1), touch(2))
	_, err := next(t, s)
	var skipped *sensors.SkippedError
	var line *uart.LineError
	if !errors.As(err, &skipped) || !errors.As(err, &line) || line.Damage != uart.BadChecksum || line.Tries != 3 {
		t.Fatalf("got %v", err)
	}
	expect(t, s, 1, 2)
	if st := s.Stats(); st.Lost != 1 || st.Touches != 1 {
		t.Errorf("%+v", st)
	}
}

func TestAFingerLiftedTooEarly(t *testing.T) {
	for name, early := range map[string]uarttest.Touch{
		"while it is looked at":            {Gray: picture(1), Gone: true},
		"it slides and is never a picture": {Gray: picture(1), FailsAfter: 100, Looks: 8},
		"before the picture is sent":       {Gray: picture(1), Vanishes: true},
	} {
		t.Run(name, func(t *testing.T) {
			m, s := start(t, uarttest.Options{}, uart.Options{Baud: 57600})
			m.Put(early, touch(2))
			_, err := next(t, s)
			var skipped *sensors.SkippedError
			if !errors.As(err, &skipped) || !errors.Is(err, uart.ErrLifted) {
				t.Fatalf("got %v", err)
			}
			expect(t, s, 1, 2)
			if st := s.Stats(); st.Lost != 1 || st.Touches != 1 {
				t.Errorf("%+v", st)
			}
		})
	}
	t.Run("a picture that fails and then succeeds is a touch", func(t *testing.T) {
		m, s := start(t, uarttest.Options{}, uart.Options{Baud: 57600})
		m.Put(uarttest.Touch{Gray: picture(1), FailsAfter: 2})
		expect(t, s, 1, 1)
	})
}

func TestWrongBaudRate(t *testing.T) {
	for _, mute := range []bool{true, false} {
		m, s := start(t, uarttest.Options{Baud: 115200, Mute: mute}, uart.Options{Baud: 57600})
		_, err := next(t, s)
		if !errors.Is(err, uart.ErrBaudRate) || !strings.Contains(err.Error(), "115200") {
			t.Errorf("mute %v: %v", mute, err)
		}
		m.Put(touch(1))
		if _, err := next(t, s); !errors.Is(err, uart.ErrBaudRate) {
			t.Errorf("asked again: %v", err)
		}
	}
}

func TestTheBaudRateIsFoundWhereNoneIsConfigured(t *testing.T) {
	for _, baud := range uart.Rates {
		m, s := start(t, uarttest.Options{Baud: baud}, uart.Options{})
		m.Put(touch(1))
		expect(t, s, 1, 1)
		if got := s.Stats().Baud; got != baud {
			t.Errorf("found %d, want %d", got, baud)
		}
	}
}

func TestStuckModule(t *testing.T) {
	m, s := start(t, uarttest.Options{}, uart.Options{Baud: 57600})
	m.Put(touch(1))
	expect(t, s, 1, 1)
	m.Stick(true)
	if _, err := next(t, s); !errors.Is(err, uart.ErrStuck) {
		t.Fatalf("silence in mid-work: %v", err)
	}
	if _, err := next(t, s); !errors.Is(err, uart.ErrSilent) {
		t.Fatalf("silence from the start: %v", err)
	}
	m.Stick(false)
	m.Put(touch(2))
	expect(t, s, 2, 2)
	m.Jabber(true)
	if _, err := next(t, s); !errors.Is(err, uart.ErrStuck) && !errors.As(err, new(*uart.LineError)) {
		t.Fatalf("a module that never stops talking: %v", err)
	}
	m.Jabber(false)
	m.Put(touch(3))
	for {
		f, err := next(t, s)
		if err == nil {
			f.Release()
			break
		}
		if !errors.Is(err, uart.ErrStuck) && !errors.As(err, new(*uart.LineError)) {
			t.Fatalf("it mended: %v", err)
		}
	}
}

func TestPassword(t *testing.T) {
	m, s := start(t, uarttest.Options{Password: 0xC0FFEE}, uart.Options{Baud: 57600, Password: 1})
	if _, err := next(t, s); !errors.Is(err, uart.ErrPassword) {
		t.Fatalf("with a wrong password: %v", err)
	}
	_, right := start(t, uarttest.Options{}, uart.Options{Path: m.Path(), Baud: 57600, Password: 0xC0FFEE})
	m.Put(touch(1))
	expect(t, right, 1, 1)
}

func TestUnpluggedAndBack(t *testing.T) {
	first, err := uarttest.New(uarttest.Options{})
	if err != nil {
		t.Skip(err)
	}
	port := filepath.Join(t.TempDir(), "port")
	if err := os.Symlink(first.Path(), port); err != nil {
		t.Fatal(err)
	}
	m, s := start(t, uarttest.Options{}, uart.Options{Path: port, Baud: 57600})
	first.Put(touch(1))
	expect(t, s, 1, 1)
	if err := os.Remove(port); err != nil {
		t.Fatal(err)
	}
	first.Close()
	if _, err := next(t, s); !errors.Is(err, sensors.ErrUnplugged) {
		t.Fatalf("without its port: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("it is told once, then waited for: %v", err)
	}
	if err := os.Symlink(m.Path(), port); err != nil {
		t.Fatal(err)
	}
	m.Put(touch(2))
	expect(t, s, 2, 2)
}

func TestLight(t *testing.T) {
	for name, o := range map[string]uarttest.Options{"backlight": {}, "ring": {Ring: true}, "none": {NoLight: true}} {
		m, s := start(t, o, uart.Options{Baud: 57600, Light: true})
		m.Put(touch(1))
		expect(t, s, 1, 1)
		if lit := m.State().Lit; lit != (name != "none") {
			t.Errorf("%s: lit %v", name, lit)
		}
	}
}

// dial speaks to a module without a Source.
func dial(t *testing.T, m *uarttest.Module, baud int) *uart.Module {
	t.Helper()
	port, err := serial.Open(m.Path(), &serial.Mode{BaudRate: baud})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.Close() })
	return uart.NewModule(port, 0, quick)
}

func TestModuleSettings(t *testing.T) {
	m, _ := start(t, uarttest.Options{}, uart.Options{})
	ctx, d := t.Context(), dial(t, m, 57600)
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	check("handshake", d.Verify(ctx, 0))
	check("password", d.SetPassword(ctx, 0x12345678))
	if err := d.Verify(ctx, 0); !errors.Is(err, uart.ErrPassword) {
		t.Errorf("the old password: %v", err)
	}
	check("the new password", d.Verify(ctx, 0x12345678))
	check("packet size", d.SetPacketBytes(ctx, 256))
	check("security level", d.SetSecurity(ctx, 5))
	for what, err := range map[string]error{
		"packet size": d.SetPacketBytes(ctx, 100), "security level": d.SetSecurity(ctx, 6), "baud rate": d.SetBaud(ctx, 10000),
	} {
		if err == nil {
			t.Errorf("an impossible %s is taken", what)
		}
	}
	want := uart.Parameters{SystemID: 9, Capacity: 1000, Security: 3, Address: uart.AnyAddress, PacketBytes: 256, Baud: 57600}
	if p, err := d.Parameters(ctx); err != nil || p != want {
		t.Errorf("parameters %+v, %v", p, err)
	}
	check("baud rate", d.SetBaud(ctx, 115200))
	if err := d.Verify(ctx, 0x12345678); err == nil {
		t.Error("the old rate still works")
	}
	d = dial(t, m, 115200)
	check("the new rate", d.Verify(ctx, 0x12345678))
}

func TestCloseWakesNext(t *testing.T) {
	_, s := start(t, uarttest.Options{}, uart.Options{Baud: 57600})
	woken := make(chan error)
	go func() {
		_, err := s.Next(context.Background())
		woken <- err
	}()
	time.Sleep(20 * time.Millisecond)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-woken; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Next: %v", err)
	}
}

func TestImpossibleOptions(t *testing.T) {
	for _, o := range []uart.Options{{Width: 255, Height: 288}, {Width: 256, Height: 4000}, {Width: 256, Height: -1}, {Baud: -1}, {Frames: -1}} {
		if s, err := uart.Open(o); err == nil {
			s.Close()
			t.Errorf("%+v is taken", o)
		}
	}
}

// TestTheLineTakesItsTime: what a picture costs at both rates, counted in bits.
func TestTheLineTakesItsTime(t *testing.T) {
	for _, baud := range []int{57600, 115200} {
		m, s := start(t, uarttest.Options{Baud: baud, Speed: 20}, uart.Options{Baud: baud})
		m.Put(touch(1))
		expect(t, s, 1, 1)
		packets := width * height / 2 / 128
		least := time.Duration(packets*(128+11)) * 10 * time.Second / time.Duration(baud)
		if got := m.State().LineTime; got < least || got > least+least/2 {
			t.Errorf("%d baud: %v on the line, want %v and a little", baud, got, least)
		}
	}
}
