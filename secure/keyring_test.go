package secure

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"vigil/secure/mem"
)

const testDevice = "00112233aabbccdd"

// testRoot is a root secret of known bytes.
func testRoot(t testing.TB, fill byte) *mem.Buffer {
	t.Helper()
	root, err := mem.FromBytes(bytes.Repeat([]byte{fill}, RootBytes))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func testKEKs(t testing.TB, root *mem.Buffer) []WrappedKEK {
	t.Helper()
	keks, err := GenerateKEKs(root, testDevice, Purposes()...)
	if err != nil {
		t.Fatal(err)
	}
	return keks
}

func testRing(t testing.TB, root *mem.Buffer, keks []WrappedKEK) *Keyring {
	t.Helper()
	r, err := NewKeyring(root, testDevice, keks)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestDEK(t *testing.T) {
	noLeak(t)
	root := testRoot(t, 1)
	keks := testKEKs(t, root)
	r := testRing(t, root, keks)
	for _, p := range Purposes() {
		dek, wrapped, err := r.NewDEK(p, place)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := dek.Seal([]byte("template"), place)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(wrapped, dek.bytes()) {
			t.Error("the wrapped key holds the key")
		}
		dek.Close()
		// A ring opened later has the same keys.
		later := testRing(t, root, keks)
		again, err := later.OpenDEK(p, wrapped, place)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := again.Open(sealed, place); err != nil || string(got) != "template" {
			t.Errorf("%s: %q (%v)", p, got, err)
		}
		again.Close()
	}
}

func TestOpenDEKRefuses(t *testing.T) {
	noLeak(t)
	root := testRoot(t, 1)
	r := testRing(t, root, testKEKs(t, root))
	dek, wrapped, err := r.NewDEK(Templates, place)
	if err != nil {
		t.Fatal(err)
	}
	defer dek.Close()
	altered, version := bytes.Clone(wrapped), bytes.Clone(wrapped)
	altered[len(altered)-1] ^= 1
	binary.BigEndian.PutUint32(version[1:], 2)
	asData, err := dek.Seal(make([]byte, dekBytes), place)
	if err != nil {
		t.Fatal(err)
	}
	other := place
	other.Key = "s-2"
	for _, c := range []struct {
		name    string
		purpose Purpose
		wrapped []byte
		aad     AAD
		want    error
	}{
		{"another purpose", Audit, wrapped, place, ErrTampered},
		{"an unknown purpose", "photos", wrapped, place, ErrKeyVersion},
		{"another place", Templates, wrapped, other, ErrTampered},
		{"altered", Templates, altered, place, ErrTampered},
		{"another version", Templates, version, place, ErrKeyVersion},
		{"data", Templates, asData, place, ErrTampered},
		{"empty", Templates, nil, place, ErrFormat},
		{"cut", Templates, wrapped[:len(wrapped)-1], place, ErrFormat},
		{"longer", Templates, append(bytes.Clone(wrapped), 0), place, ErrFormat},
	} {
		if k, err := r.OpenDEK(c.purpose, c.wrapped, c.aad); !errors.Is(err, c.want) {
			k.Close()
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	r.Close()
	if _, err := r.OpenDEK(Templates, wrapped, place); !errors.Is(err, ErrClosed) {
		t.Errorf("closed ring: %v", err)
	}
	if _, _, err := r.NewDEK(Templates, place); !errors.Is(err, ErrClosed) {
		t.Errorf("closed ring: %v", err)
	}
}

func TestNewKeyringRefuses(t *testing.T) {
	noLeak(t)
	root := testRoot(t, 1)
	good := testKEKs(t, root)
	change := func(f func(k *WrappedKEK)) []WrappedKEK {
		out := append([]WrappedKEK(nil), good...)
		out[1].Wrapped = bytes.Clone(out[1].Wrapped)
		f(&out[1])
		return out
	}
	short, err := mem.New(16)
	if err != nil {
		t.Fatal(err)
	}
	defer short.Close()
	for _, c := range []struct {
		name   string
		root   *mem.Buffer
		device string
		keks   []WrappedKEK
		want   error
	}{
		{"another root", testRoot(t, 2), testDevice, good, ErrTampered},
		{"another device", root, "ffff", good, ErrTampered},
		{"a short root", short, testDevice, good, ErrFormat},
		{"a closed root", &mem.Buffer{}, testDevice, good, ErrFormat},
		{"another purpose", root, testDevice, change(func(k *WrappedKEK) { k.Purpose = "photos" }), ErrTampered},
		{"another version", root, testDevice, change(func(k *WrappedKEK) { k.Version = 2 }), ErrTampered},
		{"version 0", root, testDevice, change(func(k *WrappedKEK) { k.Version = 0 }), ErrFormat},
		{"no purpose", root, testDevice, change(func(k *WrappedKEK) { k.Purpose = "" }), ErrFormat},
		{"altered", root, testDevice, change(func(k *WrappedKEK) { k.Wrapped[30] ^= 1 }), ErrTampered},
		{"cut", root, testDevice, change(func(k *WrappedKEK) { k.Wrapped = k.Wrapped[:20] }), ErrFormat},
		{"twice", root, testDevice, append(change(func(*WrappedKEK) {}), good[1]), ErrFormat},
	} {
		if r, err := NewKeyring(c.root, c.device, c.keks); !errors.Is(err, c.want) {
			r.Close()
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

// TestVersions has a ring with two versions of a KEK, in any order: the newest
// wraps, both unwrap.
func TestVersions(t *testing.T) {
	noLeak(t)
	root := testRoot(t, 1)
	old := testKEKs(t, root)
	before := testRing(t, root, old)
	dek, wrapped, err := before.NewDEK(Templates, place)
	if err != nil {
		t.Fatal(err)
	}
	defer dek.Close()
	wrapper, err := deriveWrapper(root, testDevice)
	if err != nil {
		t.Fatal(err)
	}
	defer wrapper.Close()
	second, err := generateKEK(wrapper, Templates, 2, testDevice)
	if err != nil {
		t.Fatal(err)
	}
	after := testRing(t, root, append([]WrappedKEK{second}, old...))
	again, err := after.OpenDEK(Templates, wrapped, place)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if !bytes.Equal(again.bytes(), dek.bytes()) {
		t.Error("another key came back")
	}
	newer, rewrapped, err := after.NewDEK(Templates, place)
	if err != nil {
		t.Fatal(err)
	}
	defer newer.Close()
	if v, err := wrappedVersion(rewrapped); err != nil || v != 2 {
		t.Errorf("wrapped with version %d (%v)", v, err)
	}
	if _, err := before.OpenDEK(Templates, rewrapped, place); !errors.Is(err, ErrKeyVersion) {
		t.Errorf("the old ring opened it: %v", err)
	}
}

func FuzzWrappedKey(f *testing.F) {
	root := testRoot(f, 1)
	r := testRing(f, root, testKEKs(f, root))
	dek, wrapped, err := r.NewDEK(Templates, place)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { dek.Close() })
	f.Add(wrapped)
	f.Add(wrapped[:len(wrapped)-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		k, err := r.OpenDEK(Templates, raw, place)
		if err == nil {
			defer k.Close()
			if !bytes.Equal(raw, wrapped) {
				t.Error("opened a forgery")
			}
		} else if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrKeyVersion) && !errors.Is(err, ErrTampered) {
			t.Errorf("error without sentinel: %v", err)
		}
	})
}

func BenchmarkOpenDEK(b *testing.B) {
	root := testRoot(b, 1)
	r := testRing(b, root, testKEKs(b, root))
	dek, wrapped, err := r.NewDEK(Templates, place)
	if err != nil {
		b.Fatal(err)
	}
	dek.Close()
	b.ReportAllocs()
	for b.Loop() {
		k, err := r.OpenDEK(Templates, wrapped, place)
		if err != nil {
			b.Fatal(err)
		}
		k.Close()
	}
}
