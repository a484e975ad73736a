package trt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vigil/infer"
)

type room []byte

func (r room) Bytes() []byte { return r }
func (r room) Close() error  { clear(r); return nil }

// counting is an allocator that knows how much is open, and how much was asked for at the most.
type counting struct{ open, most int }

func (c *counting) alloc(n int) (Memory, error) {
	c.open++
	c.most = max(c.most, n)
	return &counted{make(room, n), c}, nil
}

type counted struct {
	room
	c *counting
}

func (m *counted) Close() error { m.c.open--; return m.room.Close() }

// said is what a child sends.
func said(t testing.TB, frames ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	for i := 0; i < len(frames); i += 2 {
		var payload []byte
		switch v := frames[i+1].(type) {
		case string:
			payload = []byte(v)
		case int:
			payload = binary.BigEndian.AppendUint64(nil, uint64(v))
		}
		if err := writeFrame(&b, frames[i].(byte), payload); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestExchange(t *testing.T) {
	const p, e, d, z, x = byte(frameStep), byte(frameSize), byte(framePiece), byte(frameBuilt), byte(frameFailed)
	whole := said(t, p, `{"phase":"parse","steps":1}`, e, 6, d, "eng", p, `{"phase":"build","done":3}`, d, "ine", z, `{"bytes":6,"layers":2}`)
	for name, c := range map[string]struct {
		from []byte
		want string // error
		is   error
	}{
		"good":              {from: whole},
		"cut in a header":   {whole[:3], "it ends within a header", errWire},
		"cut in a frame":    {whole[:20], "it ends within a frame", errWire},
		"cut in the engine": {said(t, e, 6, d, "eng")[:20], "it ends within the engine", errWire},
		"no last word":      {said(t, e, 6, d, "engine"), "ended without an answer", io.ErrUnexpectedEOF},
		"nothing":           {nil, "ended without an answer", io.ErrUnexpectedEOF},
		"refused":           {said(t, x, "node y"), "TensorRT refuses: node y", ErrRefused},
		"refused late":      {said(t, e, 6, d, "eng", x, "no"), "TensorRT refuses: no", ErrRefused},
		"too little":        {said(t, e, 6, d, "eng", z, `{}`), "an engine of 3 bytes, 6 were promised", errWire},
		"too much":          {said(t, e, 2, d, "eng"), "more of an engine than was promised", errWire},
		"pieces first":      {said(t, d, "eng"), "more of an engine than was promised", errWire},
		"two sizes":         {said(t, e, 6, e, 6), "a second or broken size", errWire},
		"no size":           {said(t, z, `{}`), "an end without an engine", errWire},
		"size of nothing":   {said(t, e, 0), "an engine of 0 bytes", errWire},
		"size of a machine": {said(t, e, 1<<50), "an engine of 1125899906842624 bytes", errWire},
		"broken step":       {said(t, p, "{"), "JSON", errWire},
		"an order":          {said(t, byte(frameOrder), "{}"), `a frame 'q' from the child`, errWire},
		"long frame":        {[]byte{p, 255, 255, 255, 255}, `a frame 'p' of 4294967295 bytes`, errWire},
		"unknown frame":     {[]byte{'?', 0, 0, 0, 1, 0}, `a frame '?' of 1 bytes`, errWire},
	} {
		t.Run(name, func(t *testing.T) {
			var to bytes.Buffer
			var steps []Step
			var c0 counting
			m, built, err := Exchange(&to, bytes.NewReader(c.from), Order{WorkspaceBytes: 5}, []byte("model"), c0.alloc, func(s Step) { steps = append(steps, s) })
			if c.want == "" {
				if err != nil || string(m.Bytes()) != "engine" || built.Layers != 2 || len(steps) != 2 || steps[1].Done != 3 {
					t.Fatalf("%v, %+v, %v", err, built, steps)
				}
				if err := m.Close(); err != nil {
					t.Error(err)
				}
			} else if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, c.is) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if c0.open != 0 {
				t.Errorf("%d engines are left open", c0.open)
			}
			o, model, err := readOrder(&to)
			if err != nil || string(model) != "model" || o.WorkspaceBytes != 5 {
				t.Errorf("the child reads %+v, %q, %v", o, model, err)
			}
		})
	}
}

// TestReadOrder: what a child that was started by somebody else reads.
func TestReadOrder(t *testing.T) {
	for name, data := range map[string][]byte{
		"nothing": nil, "no order": said(t, byte(frameModel), "m"), "no model": said(t, byte(frameOrder), "{}"),
		"broken": said(t, byte(frameOrder), "{"), "cut": said(t, byte(frameOrder), "{}", byte(frameModel), "model")[:10],
	} {
		if _, _, err := readOrder(bytes.NewReader(data)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestAChildLimitsItself, and lives with a filter that forbids it.
func TestAChildLimitsItself(t *testing.T) {
	set := map[int]uint64{}
	var answer error
	limit := func(what int, l *unix.Rlimit) error { set[what] = l.Cur; return answer }
	if err := (Order{MemoryBytes: 1 << 30, CPUSeconds: 9}).limit(limit); err != nil {
		t.Fatal(err)
	}
	if data, there := set[unix.RLIMIT_DATA]; set[unix.RLIMIT_CPU] != 9 || !there || data <= 1<<30 || len(set) != 3 || set[unix.RLIMIT_CORE] != 0 {
		t.Errorf("limits %v", set)
	}
	clear(set)
	if err := (Order{}).limit(limit); err != nil || len(set) != 1 {
		t.Errorf("without limits: %v, %v", set, err)
	}
	if answer = unix.EPERM; (Order{MemoryBytes: 1}).limit(limit) != nil {
		t.Error("a filter keeps it from building")
	}
	if answer = unix.EINVAL; !errors.Is((Order{MemoryBytes: 1}).limit(limit), unix.EINVAL) {
		t.Error("another error is dropped")
	}
}

func TestGenerations(t *testing.T) {
	for version, want := range map[int]string{
		10500: "rtx", 10701: "rtx", 10799: "rtx", 100300: "10", 101601: "10", 110000: "11", 110400: "11",
		10400: "", 10800: "", 100299: "", 101700: "", 110500: "", 8601: "", 0: "", -5: "",
	} {
		g, err := generationOf("/lib/x.so", version)
		if g.Name != want || (err == nil) != (want != "") || err != nil && (!errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), VersionText(version))) {
			t.Errorf("%d: %q, %v", version, g.Name, err)
		}
	}
	for version, want := range map[int]string{101601: "10.16.1", 10701: "1.7.1", 110400: "11.4.0", 8601: "number 8601"} {
		if got := VersionText(version); got != want {
			t.Errorf("%d is %q, want %q", version, got, want)
		}
	}
	if got := fmt.Sprint(Library{Version: 10701, Generation: "rtx"}, " ", Library{Version: 100300, Generation: "10"}); got != "TensorRT-RTX 1.7.1 TensorRT 10.3.0" {
		t.Error(got)
	}
}

// FuzzExchange: whatever a child sends, the parent takes an engine that is whole, or none, and never makes room for more
// than a child may promise.
func FuzzExchange(f *testing.F) {
	f.Add(said(f, byte(frameSize), 6, byte(framePiece), "engine", byte(frameBuilt), `{"bytes":6}`))
	f.Add(said(f, byte(frameFailed), "no"))
	f.Add(said(f, byte(frameStep), `{"phase":"parse"}`, byte(frameSize), 3)[:12])
	f.Add([]byte{'e', 0, 0, 0, 8, 0, 0, 0, 0, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		open := 0
		alloc := func(n int) (Memory, error) {
			if n > maxEngineBytes {
				t.Fatalf("%d bytes", n)
			}
			if n > 1<<20 {
				return nil, errors.New("no more memory for a fuzzer")
			}
			open++
			return &counted{make(room, n), &counting{}}, nil
		}
		m, _, err := Exchange(io.Discard, bytes.NewReader(data), Order{}, nil, alloc, nil)
		if err == nil && len(m.Bytes()) == 0 {
			t.Error("an engine of nothing")
		}
	})
}

// FuzzReadOrder: a child that reads anything does not fall over.
func FuzzReadOrder(f *testing.F) {
	f.Add(said(f, byte(frameOrder), `{"inputs":[{"name":"a","shape":[1]}]}`, byte(frameModel), "model"))
	f.Add([]byte{'q', 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 10 && data[0] == frameModel {
			return
		}
		o, model, err := readOrder(bytes.NewReader(data))
		if err == nil && int64(len(model)) > infer.MaxModelBytes {
			t.Errorf("%+v with %d bytes", o, len(model))
		}
	})
}
