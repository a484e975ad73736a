package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
)

func TestSeal(t *testing.T) {
	private, err := ManagementKEM().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := ManagementKEM().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	public, err := ParseManagementKey(private.PublicKey().Bytes())
	if err != nil {
		t.Fatal(err)
	}
	b := Binding{Tenant: "acme", Device: "gate-7", Origin: "s1", Class: "decision", ID: 7}
	body := []byte(`{"name":"Ada"}`)
	sealed, err := SealEvent(public, b, body)
	if err != nil {
		t.Fatal(err)
	}
	if len(sealed) != len(body)+sealOverheadBytes || bytes.Contains(sealed, body) {
		t.Errorf("sealed body has %d bytes for %d", len(sealed), len(body))
	}
	if got, err := OpenEvent(private, b, sealed); err != nil || !bytes.Equal(got, body) {
		t.Errorf("OpenEvent = %q, %v", got, err)
	}
	again, err := SealEvent(public, b, body)
	if err != nil || bytes.Equal(again, sealed) {
		t.Errorf("two seals are equal or failed: %v", err)
	}

	for i := range sealed { // every byte counts
		bad := bytes.Clone(sealed)
		bad[i] ^= 0x40
		if _, err := OpenEvent(private, b, bad); !errors.Is(err, ErrSealed) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	for n := range sealed {
		if _, err := OpenEvent(private, b, sealed[:n]); !errors.Is(err, ErrSealed) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	if _, err := OpenEvent(other, b, sealed); !errors.Is(err, ErrSealed) {
		t.Errorf("another key: %v", err)
	}
	for name, moved := range map[string]Binding{
		"tenant": {"acmf", "gate-7", "s1", "decision", 7}, "device": {"acme", "gate-8", "s1", "decision", 7},
		"origin": {"acme", "gate-7", "s2", "decision", 7}, "class": {"acme", "gate-7", "s1", "result", 7},
		"id": {"acme", "gate-7", "s1", "decision", 8}, "border": {"acmeg", "ate-7", "s1", "decision", 7},
	} {
		if _, err := OpenEvent(private, moved, sealed); !errors.Is(err, ErrSealed) {
			t.Errorf("moved to another %s: %v", name, err)
		}
	}
}

func TestParseManagementKey(t *testing.T) {
	for _, n := range []int{0, 31, 33} {
		if _, err := ParseManagementKey(make([]byte, n)); err == nil {
			t.Errorf("a key of %d bytes is taken", n)
		}
	}
}

func TestParseEnvelope(t *testing.T) {
	good := `{"v":1,"id":7,"origin":"s1","session":3,"class":"decision","body":"AAAA"}`
	e, err := ParseEnvelope([]byte(good))
	if err != nil || e.ID != 7 || e.Session != 3 || e.Class != "decision" || len(e.Body) != 3 {
		t.Fatalf("ParseEnvelope = %+v, %v", e, err)
	}
	for name, bad := range map[string]string{
		"empty":        ``,
		"array":        `[]`,
		"version":      `{"v":2,"id":7,"origin":"s1","session":3,"class":"decision","body":"AAAA"}`,
		"unknown":      `{"v":1,"id":7,"origin":"s1","session":3,"class":"decision","body":"AAAA","x":1}`,
		"missing":      `{"v":1,"id":7,"origin":"s1","session":3,"class":"decision"}`,
		"twice":        `{"v":1,"id":7,"id":8,"origin":"s1","session":3,"class":"decision","body":"AAAA"}`,
		"other case":   `{"v":1,"ID":7,"origin":"s1","session":3,"class":"decision","body":"AAAA"}`,
		"negative id":  `{"v":1,"id":-7,"origin":"s1","session":3,"class":"decision","body":"AAAA"}`,
		"bad class":    `{"v":1,"id":7,"origin":"s1","session":3,"class":"a/b","body":"AAAA"}`,
		"bad origin":   `{"v":1,"id":7,"origin":"+","session":3,"class":"decision","body":"AAAA"}`,
		"bad body":     `{"v":1,"id":7,"origin":"s1","session":3,"class":"decision","body":"*"}`,
		"data behind":  good + `{}`,
		"invalid UTF8": "{\"v\":1,\"id\":7,\"origin\":\"s1\",\"session\":3,\"class\":\"\xff\",\"body\":\"AAAA\"}",
	} {
		if _, err := ParseEnvelope([]byte(bad)); !errors.Is(err, ErrEnvelope) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseEnvelope(f *testing.F) {
	private, err := ManagementKEM().GenerateKey()
	if err != nil {
		f.Fatal(err)
	}
	sealed, err := SealEvent(private.PublicKey(), Binding{"acme", "gate-7", "s1", "decision", 7}, []byte("{}"))
	if err != nil {
		f.Fatal(err)
	}
	real, err := json.Marshal(Envelope{Version: 1, ID: 7, Origin: "s1", Session: 3, Class: "decision", Body: sealed})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(real)
	f.Add([]byte(`{"v":1,"id":1,"origin":"","session":1,"class":"gap","body":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := ParseEnvelope(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseEnvelope(again); err != nil || back.ID != e.ID || back.Class != e.Class || !bytes.Equal(back.Body, e.Body) {
			t.Fatalf("%q does not survive: %+v, %v", data, back, err)
		}
	})
}
