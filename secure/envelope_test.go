package secure

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	"vigil/secure/mem"
)

// noLeak fails the test when locked memory stays open.
func noLeak(t testing.TB) {
	t.Helper()
	before, _ := mem.Live()
	t.Cleanup(func() {
		if after, _ := mem.Live(); after != before {
			t.Errorf("%d locked buffers are open, before the test it were %d", after, before)
		}
	})
}

// testKey is a key of known bytes.
func testKey(t testing.TB, fill byte, version uint32) *Key {
	t.Helper()
	raw, err := mem.FromBytes(bytes.Repeat([]byte{fill}, keyBytes))
	if err != nil {
		t.Fatal(err)
	}
	k := &Key{raw: raw, version: version}
	t.Cleanup(func() { k.Close() })
	return k
}

var place = AAD{Bucket: "subjects", Key: "s-1", Schema: 3}

func TestSealOpen(t *testing.T) {
	noLeak(t)
	k := testKey(t, 1, 7)
	for _, n := range []int{0, 1, 15, 16, 17, 512, 70000} {
		plain := bytes.Repeat([]byte("x"), n)
		sealed, err := k.Seal(plain, place)
		if err != nil {
			t.Fatal(err)
		}
		if len(sealed) != n+EnvelopeOverhead {
			t.Errorf("%d bytes became %d", n, len(sealed))
		}
		again, _ := k.Seal(plain, place)
		if bytes.Equal(sealed, again) {
			t.Error("the nonce was used twice")
		}
		got, err := k.Open(sealed, place)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: %v", n, err)
		}
		dst := bytes.Repeat([]byte{0xEE}, n+3)
		m, err := k.OpenInto(dst, sealed, place)
		if err != nil || m != n || !bytes.Equal(dst[:n], plain) || !bytes.Equal(dst[n:], []byte{0xEE, 0xEE, 0xEE}) {
			t.Errorf("%d bytes into %d: %d, %v", n, len(dst), m, err)
		}
		if n > 0 {
			if _, err := k.OpenInto(dst[:n-1], sealed, place); !errors.Is(err, io.ErrShortBuffer) {
				t.Errorf("short buffer: %v", err)
			}
		}
	}
}

// TestEnvelopeLayout opens an envelope with nothing but the standard library, by
// the layout that the documentation gives.
func TestEnvelopeLayout(t *testing.T) {
	noLeak(t)
	sealed, err := testKey(t, 1, 0x01020304).Seal([]byte("attack at dawn"), place)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(sealed[:5]); got != "e101020304" {
		t.Errorf("header is %s", got)
	}
	block, _ := aes.NewCipher(bytes.Repeat([]byte{1}, 32))
	gcm, _ := cipher.NewGCM(block)
	aad := "\x00\x00\x00\x05\xe1\x01\x02\x03\x04" + "\x00\x00\x00\x0cvigil/1 data" + "\x00\x00\x00\x08subjects" + "\x00\x00\x00\x03s-1" + "\x00\x03"
	plain, err := gcm.Open(nil, sealed[5:17], sealed[17:], []byte(aad))
	if err != nil || string(plain) != "attack at dawn" {
		t.Errorf("got %q (%v)", plain, err)
	}
}

// TestGoldenEnvelope holds the format for all times: an envelope in testdata
// must open.
func TestGoldenEnvelope(t *testing.T) {
	noLeak(t)
	raw, err := os.ReadFile("testdata/envelope.hex")
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := hex.DecodeString(strings.TrimSpace(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := testKey(t, 0x42, 9).Open(sealed, AAD{Bucket: "golden", Key: "k\x00ey", Schema: 65535})
	if err != nil || string(got) != "an envelope of format 0xE1" {
		t.Errorf("got %q (%v)", got, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	noLeak(t)
	k := testKey(t, 1, 7)
	sealed, err := k.Seal([]byte("attack at dawn"), place)
	if err != nil {
		t.Fatal(err)
	}
	for at := range sealed {
		bad := bytes.Clone(sealed)
		bad[at] ^= 0x80
		want := ErrTampered
		if at == 0 {
			want = ErrFormat
		} else if at < headerBytes {
			want = ErrKeyVersion
		}
		dst := bytes.Repeat([]byte{0xEE}, 14)
		if _, err := k.OpenInto(dst, bad, place); !errors.Is(err, want) {
			t.Errorf("byte %d altered: %v", at, err)
		}
		if bytes.Contains(dst, []byte("dawn")) {
			t.Errorf("byte %d altered: plaintext was left", at)
		}
	}
	for n := range len(sealed) {
		if _, err := k.Open(sealed[:n], place); err == nil {
			t.Errorf("opened %d of %d bytes", n, len(sealed))
		}
	}
	for _, other := range []AAD{
		{}, {"subjects", "s-1", 4}, {"subjects", "s-2", 3}, {"subject", "ss-1", 3}, {"subjectss", "-1", 3}, {"", "subjectss-1", 3},
	} {
		if _, err := k.Open(sealed, other); !errors.Is(err, ErrTampered) {
			t.Errorf("%+v: %v", other, err)
		}
	}
	if _, err := testKey(t, 2, 7).Open(sealed, place); !errors.Is(err, ErrTampered) {
		t.Errorf("another key: %v", err)
	}
	if _, err := testKey(t, 1, 8).Open(sealed, place); !errors.Is(err, ErrKeyVersion) {
		t.Errorf("another version: %v", err)
	}
	if _, err := k.open(make([]byte, 14), sealed, domainDEK, place); !errors.Is(err, ErrTampered) {
		t.Errorf("another domain: %v", err)
	}
}

func TestAADIsUnambiguous(t *testing.T) {
	seen := make(map[string]string)
	parts := []string{"", "a", "ab", "b", "\x00", "\x00\x00\x00\x01", "a\x00\x00\x00\x01b"}
	for _, domain := range parts {
		for _, bucket := range parts {
			for _, key := range parts {
				for _, header := range parts {
					a := AAD{Bucket: bucket, Key: key}
					name := fmt.Sprintf("%q", []string{domain, bucket, key, header})
					code := string(a.encode(domain, []byte(header)))
					if other, ok := seen[code]; ok {
						t.Fatalf("%s and %s encode alike", name, other)
					}
					seen[code] = name
				}
			}
		}
	}
}

func TestClosedKey(t *testing.T) {
	noLeak(t)
	k := testKey(t, 1, 7)
	sealed, _ := k.Seal([]byte("x"), place)
	if err := errors.Join(k.Close(), k.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Seal(nil, place); !errors.Is(err, ErrClosed) {
		t.Errorf("seal: %v", err)
	}
	if _, err := k.Open(sealed, place); !errors.Is(err, ErrClosed) {
		t.Errorf("open: %v", err)
	}
}

// TestCloseWaits closes a key under way; the race detector and the kernel (a
// fault on unmapped memory) judge.
func TestCloseWaits(t *testing.T) {
	noLeak(t)
	for range 20 {
		k := testKey(t, 1, 7)
		var workers sync.WaitGroup
		for range 4 {
			workers.Go(func() {
				for {
					if _, err := k.Seal([]byte("x"), place); err != nil {
						return
					}
				}
			})
		}
		k.Close()
		workers.Wait()
	}
}

func TestKeysPrintAsSecret(t *testing.T) {
	noLeak(t)
	k := testKey(t, 0x41, 7) // "AAAA…"
	ring := &Keyring{keks: map[Purpose][]*Key{Audit: {k}}}
	h := struct {
		Key    *Key
		Ring   *Keyring
		hidden *Key
		ring   *Keyring
	}{k, ring, k, ring}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", k, "ring", ring, "all", h)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", k, "ring", ring, "all", h)
	out := []string{log.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
		if got := fmt.Sprintf(verb+verb, k, ring); got != "[secret][secret]" {
			t.Errorf("%s prints %q", verb, got)
		}
		out = append(out, fmt.Sprintf(verb, h), fmt.Sprintf(verb, &h))
	}
	encoded, err := json.Marshal(h)
	if err != nil {
		t.Error(err)
	}
	for _, s := range append(out, string(encoded)) {
		for _, leak := range []string{"AAAA", "41414141", "65 65 65", "0x41, 0x41", "QUFBQU"} {
			if strings.Contains(s, leak) {
				t.Errorf("leaks %q: %.200s", leak, s)
			}
		}
	}
}

func FuzzEnvelope(f *testing.F) {
	k := testKey(f, 1, 7)
	for _, plain := range []string{"", "x", "attack at dawn"} {
		sealed, err := k.Seal([]byte(plain), place)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(sealed)
		f.Add(sealed[:len(sealed)-1])
	}
	f.Add([]byte{envelopeFormat})
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := parseEnvelope(raw)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("error without ErrFormat: %v", err)
			}
		} else if !bytes.Equal(bytes.Join([][]byte{e.header, e.nonce, e.sealed}, nil), raw) {
			t.Error("the parts are not the whole")
		}
		plain, err := k.Open(raw, place)
		if err == nil {
			if _, ok := map[string]bool{"": true, "x": true, "attack at dawn": true}[string(plain)]; !ok {
				t.Errorf("opened a forgery: %q", plain)
			}
		} else if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrKeyVersion) && !errors.Is(err, ErrTampered) {
			t.Errorf("error without sentinel: %v", err)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	k, plain := testKey(b, 1, 7), make([]byte, 520)
	rand.Read(plain)
	b.SetBytes(int64(len(plain)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Seal(plain, place); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenInto(b *testing.B) {
	k, plain := testKey(b, 1, 7), make([]byte, 520)
	sealed, err := k.Seal(plain, place)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(plain)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.OpenInto(plain, sealed, place); err != nil {
			b.Fatal(err)
		}
	}
}
