package store

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"testing"
	"time"
)

func FuzzHeader(f *testing.F) {
	h := header{Generation: 3, AuditSeq: 9, OutboxBytes: 1 << 40}
	f.Add(h.encode())
	f.Add(h.encode()[:20])
	f.Fuzz(func(t *testing.T, raw []byte) {
		if h, ok := decodeHeader(raw); ok && !bytes.Equal(h.encode(), raw) {
			t.Errorf("%x does not encode to itself", raw)
		}
	})
}

func FuzzTemplate(f *testing.F) {
	tm := Template{ModelID: "face-1", Values: make([]int8, 512), Scale: 0.01, Quality: 0.7}
	tm.Values[0], tm.Values[511] = -128, 127
	f.Add(tm.encode(nil))
	f.Add(tm.encode(nil)[:30])
	f.Add([]byte{templateVersion, 255})
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, ok := decodeTemplate(raw)
		if !ok {
			return
		}
		back := Template{ModelID: got.modelID, Scale: got.scale, Quality: got.quality}
		for _, v := range got.values {
			back.Values = append(back.Values, int8(v))
		}
		if err := back.check(); err != nil {
			t.Errorf("decoded what Put refuses: %v", err)
		}
		if !bytes.Equal(back.encode(nil), raw) {
			t.Errorf("%x does not encode to itself", raw)
		}
	})
}

func FuzzOutboxRecord(f *testing.F) {
	now := time.Unix(1700000000, 5)
	f.Add(OutboxRecord{Class: "decision", Created: now, Payload: []byte("{}")}.encode())
	f.Add(OutboxRecord{Class: "event", Created: now, Gap: &Gap{2, 3, 9, GapFull}}.encode())
	f.Add([]byte{outboxVersion, kindGap, 0, 0, 0, 0, 0, 0, 0, 0, 200})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if rec, ok := decodeOutbox(7, raw); ok && !bytes.Equal(rec.encode(), raw) {
			t.Errorf("%x does not encode to itself", raw)
		}
	})
}

// FuzzJSONRecords decodes what is kept as JSON; what decodes must survive
// another round.
func FuzzJSONRecords(f *testing.F) {
	for _, v := range []any{
		subjectRecord{"Ada", time.Unix(1700000000, 0).UTC(), 3, 2},
		AuditEvent{Type: "decision", Subject: "s", Detail: map[string]any{"score": 0.5}},
		commandRecord{"id", time.Unix(1700000000, 0).UTC(), []byte("r")},
	} {
		raw, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if rec, ok := decodeSubject(raw); ok {
			round(t, rec, decodeSubject)
		}
		if rec, ok := decodeAudit(raw); ok {
			round(t, rec, decodeAudit)
		}
		if rec, ok := decodeCommand(raw); ok {
			round(t, rec, decodeCommand)
		}
	})
}

func round[T any](t *testing.T, rec T, decode func([]byte) (T, bool)) {
	t.Helper()
	raw, err := json.Marshal(rec)
	if err != nil {
		t.Skip("a time that JSON cannot hold")
	}
	again, ok := decode(raw)
	second, err := json.Marshal(again)
	if err != nil || !ok || !bytes.Equal(raw, second) {
		t.Errorf("%s becomes %s (%v)", raw, second, err)
	}
}

func TestGoldenEncodings(t *testing.T) {
	tm := Template{ModelID: "m", Values: make([]int8, minDim), Scale: 1, Quality: 0.5}
	tm.Values[0] = -1
	want := append([]byte{1, 1, 'm', 0x3f, 0x80, 0, 0, 0x3f, 0, 0, 0, 0xff}, make([]byte, minDim-1)...)
	if got := tm.encode(nil); !bytes.Equal(got, want) {
		t.Errorf("template is %x, want %x", got, want)
	}
	rec := OutboxRecord{Class: "e", Created: time.Unix(0, 1), Gap: &Gap{1, 2, 3, GapAge}}
	want = []byte{1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 'e',
		0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 'a', 'g', 'e'}
	if got := rec.encode(); !bytes.Equal(got, want) {
		t.Errorf("gap is %x, want %x", got, want)
	}
	back, ok := decodeOutbox(5, want)
	if !ok || back.ID != 5 || !reflect.DeepEqual(back.Gap, rec.Gap) {
		t.Errorf("gap decodes to %+v, %v", back, ok)
	}
	if got := link([32]byte{}, 1, nil); got == link([32]byte{}, 2, nil) || got == link([32]byte{1}, 1, nil) {
		t.Error("chain hash does not depend on everything")
	}
	if (&header{}).encode()[0] != headerVersion || len((&header{}).encode()) != headerBytes {
		t.Error("header has another length or version")
	}
	for _, bad := range []float32{0, -1, float32(math.Inf(1)), float32(math.NaN())} {
		tm.Scale = bad
		if tm.check() == nil {
			t.Errorf("scale %v is accepted", bad)
		}
	}
}
