package vault_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"vigil/daemon/vault"
	"vigil/secure"
	"vigil/secure/mem"
	"vigil/secure/securetest"
)

// noise is an engine of n bytes that is its seed's own.
func noise(n int, seed uint64) []byte {
	b, r := make([]byte, n), rand.New(rand.NewPCG(seed, 5))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// cache is a cache with a clock that a test moves. At the end no locked memory may be left.
func cache(t *testing.T, dir string, limit int64) (*vault.Engines, *time.Time) {
	t.Helper()
	r := ring(t)
	buffers, _ := mem.Live()
	t.Cleanup(func() {
		if now, _ := mem.Live(); now != buffers {
			t.Errorf("%d locked buffers are left", now-buffers)
		}
	})
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	e, err := vault.OpenEngines(dir, r, limit, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	return e, &now
}

var engineKey = vault.EngineKey{Model: "aa", Library: "TensorRT 10.3.0", CUDA: 12060, Driver: 12060, Compute: "8.7", Profile: "data[1 3 112 112]", Precision: "int8"}

func put(t *testing.T, e *vault.Engines, k vault.EngineKey, data []byte) {
	t.Helper()
	if err := e.Put(k, data); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, e *vault.Engines, k vault.EngineKey) []byte {
	t.Helper()
	r, err := e.Open(k)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return data
}

func TestEnginesComeBackAsTheyWere(t *testing.T) {
	dir := t.TempDir()
	e, _ := cache(t, dir, 64<<20)
	for i, n := range []int{1, 1 << 20, 1<<20 + 1, 3<<20 + 17} {
		k := engineKey
		k.CUDA = i
		want := noise(n, uint64(i))
		put(t, e, k, want)
		if got := read(t, e, k); !bytes.Equal(got, want) {
			t.Errorf("an engine of %d bytes came back as %d others", n, len(got))
		}
	}
	r, err := e.Open(vault.EngineKey{Model: "aa"})
	if !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("an engine that was never put: %v, %v", r, err)
	}
	// Across pieces, backwards and beyond the end.
	k := engineKey
	k.CUDA = 3
	want := noise(3<<20+17, 3)
	r, err = e.Open(k)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{2<<20 - 5, 10, 1<<20 - 1} {
		p := make([]byte, 300)
		if n, err := r.ReadAt(p, at); n != len(p) || err != nil || !bytes.Equal(p, want[at:at+300]) {
			t.Errorf("300 bytes at %d: %d, %v", at, n, err)
		}
	}
	if n, err := r.ReadAt(make([]byte, 10), 3<<20+15); n != 2 || !errors.Is(err, io.EOF) {
		t.Errorf("beyond the end: %d, %v", n, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// TestEveryFieldOfTheKeyCounts: another library, driver and so on is another engine.
func TestEveryFieldOfTheKeyCounts(t *testing.T) {
	e, _ := cache(t, t.TempDir(), 64<<20)
	put(t, e, engineKey, noise(100, 1))
	for i, change := range []func(*vault.EngineKey){
		func(k *vault.EngineKey) { k.Model = "ab" }, func(k *vault.EngineKey) { k.Library = "TensorRT 10.3.1" },
		func(k *vault.EngineKey) { k.CUDA++ }, func(k *vault.EngineKey) { k.Driver++ }, func(k *vault.EngineKey) { k.Compute = "9.0" },
		func(k *vault.EngineKey) { k.Profile = "data[2 3 112 112]" }, func(k *vault.EngineKey) { k.Precision = "float32" },
	} {
		k := engineKey
		change(&k)
		if _, err := e.Open(k); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("change %d: %v", i, err)
		}
	}
}

// TestNoEngineLiesInClear: no window of the engine is in any file.
func TestNoEngineLiesInClear(t *testing.T) {
	dir := t.TempDir()
	e, _ := cache(t, dir, 64<<20)
	engine := noise(2<<20, 9)
	put(t, e, engineKey, engine)
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at+16 <= len(engine); at += 8 << 10 {
		if bytes.Contains(data, engine[at:at+16]) {
			t.Fatalf("the engine's bytes at %d are in the file", at)
		}
	}
	if bytes.Contains(data, []byte(engineKey.Library)) || bytes.Contains(data, []byte(engineKey.Profile)) {
		t.Error("the key is in the file")
	}
}

// TestBrokenEntriesAreRemoved: whatever byte is changed, the entry is refused once and is gone.
func TestBrokenEntriesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	e, _ := cache(t, dir, 64<<20)
	engine := noise(1<<20+500, 2)
	put(t, e, engineKey, engine)
	path, whole := onlyFile(t, dir)
	damage := map[string][]byte{"cut": whole[:len(whole)-1], "longer": append(slices.Clone(whole), 0), "empty": {}, "head only": whole[:40]}
	for _, at := range []int{0, 9, 20, 80, 150, 300, 1 << 19, len(whole) - 5} {
		b := slices.Clone(whole)
		b[at] ^= 1
		damage[string(rune('a'+at%26))+"-byte"+filepath.Base(path)[:2]+string(rune('0'+at%10))] = b
	}
	swapped := slices.Clone(whole) // the last piece in place of the beginning of the first
	copy(swapped[len(whole)-600:], whole[400:900])
	damage["swapped"] = swapped
	for name, b := range damage {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Open(engineKey); !errors.Is(err, vault.ErrBroken) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := e.Open(engineKey); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("%s: the second time: %v", name, err)
		}
	}
	put(t, e, engineKey, engine)
	if got := read(t, e, engineKey); !bytes.Equal(got, engine) {
		t.Error("it did not come back after it was built again")
	}
}

// TestAnEntryOfAnotherKeyIsBroken: a file that was given the name of another does not open.
func TestAnEntryOfAnotherKeyIsBroken(t *testing.T) {
	dir := t.TempDir()
	e, _ := cache(t, dir, 64<<20)
	put(t, e, engineKey, noise(100, 1))
	first, data := onlyFile(t, dir)
	if err := os.Remove(first); err != nil {
		t.Fatal(err)
	}
	other := engineKey
	other.Library = "TensorRT 10.16.1"
	put(t, e, other, noise(100, 2))
	second, _ := onlyFile(t, dir)
	if err := os.WriteFile(second, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Open(other); !errors.Is(err, vault.ErrBroken) {
		t.Errorf("error %v", err)
	}
}

func onlyFile(t *testing.T, dir string) (path string, data []byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	data, err = os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return files[0], data
}

// TestTheCacheIsBounded: the engine that was not used for longest goes first; one that is too large never comes in.
func TestTheCacheIsBounded(t *testing.T) {
	e, now := cache(t, t.TempDir(), 10_000)
	k := func(i int) vault.EngineKey { k := engineKey; k.Driver = i; return k }
	for i := range 3 {
		put(t, e, k(i), noise(3000, uint64(i)))
		*now = now.Add(time.Minute)
	}
	read(t, e, k(0))
	*now = now.Add(time.Minute)
	put(t, e, k(3), noise(3000, 3))
	for i, there := range []bool{true, false, true, true} {
		r, err := e.Open(k(i))
		if there && err == nil {
			err = r.Close()
		}
		if there && err != nil || !there && !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("engine %d: %v", i, err)
		}
	}
	if err := e.Put(k(9), noise(10_001, 1)); err == nil {
		t.Error("an engine larger than the cache was taken")
	}
	if n, count, err := e.Bytes(); n > 10_000 || count != 3 || err != nil {
		t.Errorf("%d bytes in %d entries, %v", n, count, err)
	}
}

func TestForgottenEnginesAreGone(t *testing.T) {
	dir := t.TempDir()
	e, _ := cache(t, dir, 64<<20)
	other := engineKey
	other.Model = "bb"
	put(t, e, engineKey, noise(100, 1))
	put(t, e, other, noise(100, 2))
	if err := os.WriteFile(filepath.Join(dir, "junk.engine"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.Forget([]string{"aa", "cc"}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Open(engineKey); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("a forgotten engine: %v", err)
	}
	if got := read(t, e, other); !bytes.Equal(got, noise(100, 2)) {
		t.Error("another's engine was forgotten")
	}
	if _, n, _ := e.Bytes(); n != 1 {
		t.Errorf("%d entries are left", n)
	}
}

// TestWhatACrashLeftGoes: half an entry is removed by the next start.
func TestWhatACrashLeftGoes(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".tmp-12"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	cache(t, dir, 100)
	if files, _ := filepath.Glob(filepath.Join(dir, ".*")); len(files) != 0 {
		t.Errorf("left: %v", files)
	}
}

// TestAClosedRingRemovesNothing: that the device cannot open its keys is not the entry's fault.
func TestAClosedRingRemovesNothing(t *testing.T) {
	dir, r := t.TempDir(), ring(t)
	e, err := vault.OpenEngines(dir, r, 1<<20, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	put(t, e, engineKey, noise(100, 1))
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Open(engineKey); !errors.Is(err, secure.ErrClosed) {
		t.Errorf("error %v", err)
	}
	onlyFile(t, dir)
}

// FuzzEngineFile: whatever lies in the cache, it is an engine that was put or it is broken.
func FuzzEngineFile(f *testing.F) {
	dir, r := f.TempDir(), fuzzRing(f)
	e, err := vault.OpenEngines(dir, r, 64<<20, time.Now)
	if err != nil {
		f.Fatal(err)
	}
	engine := noise(500, 1)
	if err := e.Put(engineKey, engine); err != nil {
		f.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	whole, err := os.ReadFile(files[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:50])
	f.Add([]byte("VIGILEN1\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(files[0], data, 0o600); err != nil {
			t.Fatal(err)
		}
		x, err := e.Open(engineKey)
		if errors.Is(err, vault.ErrBroken) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Close(); err != nil || !bytes.Equal(data, whole) {
			t.Errorf("something else was taken for the engine (%v)", err)
		}
	})
}

func fuzzRing(f *testing.F) *secure.Keyring {
	f.Helper()
	r, err := securetest.NewKeyring()
	if err != nil {
		f.Skip(err)
	}
	f.Cleanup(func() { r.Close() })
	return r
}
