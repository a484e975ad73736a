package vault_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vigil/daemon/vault"
	"vigil/infer"
	"vigil/infer/preset"
	"vigil/secure"
	"vigil/secure/mem"
	"vigil/secure/securetest"
)

func ring(t *testing.T) *secure.Keyring {
	t.Helper()
	r, err := securetest.NewKeyring()
	if errors.Is(err, mem.ErrLimit) {
		t.Skip("no locked memory: raise RLIMIT_MEMLOCK (ulimit -l)")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// weights are long enough to be looked for on the disk.
var weights = bytes.Repeat([]byte("these weights must never lie on a disk in clear. "), 2000)

type fromMemory []byte

func (w fromMemory) Bytes() []byte { return w }
func (w fromMemory) Close() error  { return nil }

// bundle is a model of two files whose weights are played.
func bundle(t *testing.T, id string) *infer.Model {
	t.Helper()
	m, err := preset.Load("face")
	if err != nil {
		t.Fatal(err)
	}
	m.ID = id
	content := map[string][]byte{}
	for name := range m.Files {
		content[name] = append([]byte(name+" of "+id+" "), weights...)
		sum := sha256.Sum256(content[name])
		m.Files[name] = infer.FileSpec{SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(content[name]))}
	}
	return &infer.Model{Manifest: m, Open: func(name string) (infer.Weights, error) { return fromMemory(content[name]), nil }}
}

func open(t *testing.T, dir string, r *secure.Keyring) *vault.Vault {
	t.Helper()
	v, err := vault.Open(dir, r)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// imported is a vault with the bundle "face-a" in it. At the end no locked memory may be left.
func imported(t *testing.T) (v *vault.Vault, dir string, r *secure.Keyring) {
	t.Helper()
	r = ring(t)
	buffers, _ := mem.Live()
	t.Cleanup(func() {
		if now, _ := mem.Live(); now != buffers {
			t.Errorf("%d buffers of locked memory, %d before", now, buffers)
		}
	})
	dir = filepath.Join(t.TempDir(), "models")
	v = open(t, dir, r)
	if err := v.Import(bundle(t, "face-a")); err != nil {
		t.Fatal(err)
	}
	return v, dir, r
}

// readAll loads a bundle and decrypts every file of it.
func readAll(v *vault.Vault, id string) (*infer.Manifest, map[string][]byte, error) {
	m, err := v.Load(id)
	if err != nil {
		return nil, nil, err
	}
	got := map[string][]byte{}
	for name := range m.Manifest.Files {
		w, err := m.Open(name)
		if err != nil {
			return nil, nil, err
		}
		got[name] = bytes.Clone(w.Bytes())
		if err := w.Close(); err != nil {
			return nil, nil, err
		}
	}
	return m.Manifest, got, nil
}

func mustRead(t *testing.T, v *vault.Vault, id string) {
	t.Helper()
	manifest, got, err := readAll(v, id)
	if err != nil {
		t.Fatal(err)
	}
	want := bundle(t, id)
	a, _ := json.Marshal(manifest)
	if b, _ := json.Marshal(want.Manifest); !bytes.Equal(a, b) {
		t.Errorf("manifest %s\nwant %s", a, b)
	}
	for name := range want.Manifest.Files {
		w, _ := want.Open(name)
		if !bytes.Equal(got[name], w.Bytes()) {
			t.Errorf("%s: %d bytes, want %d", name, len(got[name]), len(w.Bytes()))
		}
	}
}

// names lists every file and folder below dir.
func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if path != dir {
			list = append(list, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestImportLoadRemove(t *testing.T) {
	v, dir, r := imported(t)
	mustRead(t, v, "face-a")
	if err := v.Import(bundle(t, "face-b")); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir, r) // as after a restart
	for _, id := range []string{"face-a", "face-b"} {
		mustRead(t, again, id)
		if n, err := again.SealedBytes(id); err != nil || n < int64(2*len(weights)) || n > int64(2*len(weights))+20000 {
			t.Errorf("%s takes %d bytes, %v", id, n, err)
		}
	}
	if ids, err := again.IDs(); err != nil || !slices.Equal(ids, []string{"face-a", "face-b"}) {
		t.Errorf("bundles %v, %v", ids, err)
	}
	if err := again.Remove("face-a"); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Load("face-a"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("removed: %v", err)
	}
	if ids, _ := again.IDs(); !slices.Equal(ids, []string{"face-b"}) {
		t.Errorf("bundles %v", ids)
	}
	for _, n := range names(t, dir) {
		if !strings.HasPrefix(n, "face-b") {
			t.Errorf("%s is left", n)
		}
	}
	if err := again.Import(bundle(t, "face-a")); err != nil {
		t.Errorf("again after the removal: %v", err)
	}
	mustRead(t, again, "face-a")
}

func TestNoWeightsInClear(t *testing.T) {
	_, dir, _ := imported(t)
	secrets := []string{"never lie on a disk", "sha256", "MobileFaceNet", "onnx of face-a"}
	for _, name := range names(t, dir) {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			if info.Mode().Perm() != 0o700 {
				t.Errorf("%s has mode %v", name, info.Mode())
			}
			continue
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range secrets {
			if bytes.Contains(data, []byte(s)) {
				t.Errorf("%s holds %q in clear", name, s)
			}
		}
	}
}

// TestVariantsAreSealedLikeTheirStage: a variant is no less a secret. Weights come into locked memory and leave it again.
func TestVariantsAreSealedLikeTheirStage(t *testing.T) {
	v, dir, _ := imported(t)
	m := bundle(t, "face-int8")
	content := append([]byte("int8 of face-int8 "), weights...)
	sum := sha256.Sum256(content)
	m.Manifest.Files["embed8.onnx"] = infer.FileSpec{SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(content))}
	m.Manifest.Stage("embed").Variants = []infer.Variant{{
		Precision: "int8", Dialect: infer.DialectCPU, File: "embed8.onnx", Gate: infer.Gate{Verdict: infer.VerdictPassed},
	}}
	plain := m.Open
	m.Open = func(name string) (infer.Weights, error) {
		if name == "embed8.onnx" {
			return fromMemory(content), nil
		}
		return plain(name)
	}
	if err := v.Import(m); err != nil {
		t.Fatal(err)
	}
	sealed, err := os.ReadFile(filepath.Join(dir, "face-int8", "embed8.onnx.sealed"))
	if err != nil || bytes.Contains(sealed, []byte("never lie on a disk")) {
		t.Errorf("the variant lies in clear, or not at all (%v)", err)
	}
	back, err := v.Load("face-int8")
	if err != nil {
		t.Fatal(err)
	}
	c := back.Manifest.Stage("embed").Choose([]string{infer.DialectCPU})
	buffers, locked := mem.Live()
	w, err := back.Open(c.File)
	if err != nil || !bytes.Equal(w.Bytes(), content) {
		t.Fatal(c, err)
	}
	if b, l := mem.Live(); b != buffers+1 || l < locked+int64(len(content)) {
		t.Errorf("%d buffers of %d bytes are locked, %d of %d before: the weights are somewhere else", b, l, buffers, locked)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// TestFormat1IsTheSameBundle: what a device sealed under the first format of bundle.json opens, and is not imported a
// second time.
func TestFormat1IsTheSameBundle(t *testing.T) {
	v, dir, r := imported(t)
	text, err := json.Marshal(bundle(t, "face-a").Manifest)
	if err != nil {
		t.Fatal(err)
	}
	sealed := filepath.Join(dir, "face-a", "bundle.json.sealed")
	old := seal(t, r, filepath.Join(dir, "face-a"), "face-a", bytes.Replace(text, []byte(`"format":2`), []byte(`"format":1`), 1))
	if err := os.WriteFile(sealed, old, 0o600); err != nil {
		t.Fatal(err)
	}
	mustRead(t, v, "face-a")
	if err := v.Import(bundle(t, "face-a")); err != nil {
		t.Errorf("the same bundle, now of format 2: %v", err)
	}
	if after, err := os.ReadFile(sealed); err != nil || !bytes.Equal(old, after) {
		t.Errorf("it was written anew (%v)", err)
	}
}

// seal makes the envelope of a manifest as the vault does.
func seal(t *testing.T, r *secure.Keyring, dir, id string, manifest []byte) []byte {
	t.Helper()
	place := func(key string) secure.AAD { return secure.AAD{Bucket: "bundle/" + id, Key: key, Schema: 1} }
	wrapped, err := os.ReadFile(filepath.Join(dir, "dek.wrapped"))
	if err != nil {
		t.Fatal(err)
	}
	dek, err := r.OpenDEK(secure.Models, wrapped, place("dek.wrapped"))
	if err != nil {
		t.Fatal(err)
	}
	defer dek.Close()
	env, err := dek.Seal(manifest, place(infer.ManifestName))
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func TestImportTwice(t *testing.T) {
	v, dir, _ := imported(t)
	before, err := os.ReadFile(filepath.Join(dir, "face-a", "bundle.json.sealed"))
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Import(bundle(t, "face-a")); err != nil {
		t.Errorf("the same again: %v", err)
	}
	other := bundle(t, "face-a")
	other.Manifest.Title = "another model of the same name"
	if err := v.Import(other); !errors.Is(err, vault.ErrExists) || !strings.Contains(err.Error(), "face-a") || !strings.Contains(err.Error(), "remove it first") {
		t.Errorf("another one: %v", err)
	}
	after, err := os.ReadFile(filepath.Join(dir, "face-a", "bundle.json.sealed"))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the bundle was written anew (%v)", err)
	}
	mustRead(t, v, "face-a")
}

func TestImportRefuses(t *testing.T) {
	broken := errors.New("broken disk")
	for _, c := range []struct {
		name   string
		change func(m *infer.Model)
		want   error
	}{
		{"changed weights", func(m *infer.Model) {
			m.Open = func(string) (infer.Weights, error) { return fromMemory(bytes.Repeat([]byte("x"), len(weights))), nil }
		}, infer.ErrChecksum},
		{"weights that cannot be read", func(m *infer.Model) {
			m.Open = func(string) (infer.Weights, error) { return nil, broken }
		}, broken},
		{"an id that leads out of the folder", func(m *infer.Model) { m.Manifest.ID = "../../face-x" }, infer.ErrManifest},
		{"an id that is hidden", func(m *infer.Model) { m.Manifest.ID = ".import-x" }, infer.ErrManifest},
		{"a file that leads out of the folder", func(m *infer.Model) {
			m.Manifest.Files["../evil"] = m.Manifest.Files["mobilefacenet_foamliu.onnx"]
		}, infer.ErrManifest},
	} {
		v, dir, _ := imported(t)
		m := bundle(t, "face-new")
		c.change(m)
		if err := v.Import(m); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if _, err := v.Load("face-new"); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("%s: %v, want that nothing was imported", c.name, err)
		}
		for _, n := range names(t, filepath.Dir(dir)) {
			if n != "models" && !strings.HasPrefix(n, "models/face-a") {
				t.Errorf("%s: %s is left", c.name, n)
			}
		}
	}
}

func TestLeftoversOfACrashAreRemoved(t *testing.T) {
	v, dir, r := imported(t)
	for _, half := range []string{".import-123", ".remove-123/face-b"} {
		if err := os.MkdirAll(filepath.Join(dir, half), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, half, "a.onnx.sealed"), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if ids, err := v.IDs(); err != nil || !slices.Equal(ids, []string{"face-a"}) {
		t.Errorf("half a bundle is listed: %v, %v", ids, err)
	}
	again := open(t, dir, r)
	for _, n := range names(t, dir) {
		if !strings.HasPrefix(n, "face-a") {
			t.Errorf("%s is left", n)
		}
	}
	mustRead(t, again, "face-a")
}

// TestTampering: whatever is done to the files, the bundle does not open, and the error says which and what to do.
func TestTampering(t *testing.T) {
	const embed, detect = "mobilefacenet_foamliu.onnx.sealed", "yunet_s_320_320.onnx.sealed"
	file := func(dir, id, name string) string { return filepath.Join(dir, id, name) }
	edit := func(t *testing.T, path string, f func([]byte) []byte) {
		data, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, f(data), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	swap := func(t *testing.T, a, b string) {
		one, err := os.ReadFile(a)
		if err != nil {
			t.Fatal(err)
		}
		edit(t, a, func([]byte) []byte { two, _ := os.ReadFile(b); return two })
		edit(t, b, func([]byte) []byte { return one })
	}
	flip := func(at int) func([]byte) []byte {
		return func(d []byte) []byte { d[(at+len(d))%len(d)] ^= 1; return d }
	}
	for _, c := range []struct {
		name string
		do   func(t *testing.T, dir string)
		is   error // nil: any error
	}{
		{"first byte of the weights", func(t *testing.T, dir string) { edit(t, file(dir, "face-a", embed), flip(0)) }, secure.ErrFormat},
		{"middle of the weights", func(t *testing.T, dir string) { edit(t, file(dir, "face-a", embed), flip(1000)) }, secure.ErrTampered},
		{"last byte of the weights", func(t *testing.T, dir string) { edit(t, file(dir, "face-a", embed), flip(-1)) }, secure.ErrTampered},
		{"manifest", func(t *testing.T, dir string) { edit(t, file(dir, "face-a", "bundle.json.sealed"), flip(100)) }, secure.ErrTampered},
		{"key", func(t *testing.T, dir string) { edit(t, file(dir, "face-a", "dek.wrapped"), flip(-1)) }, secure.ErrTampered},
		{"key cut off", func(t *testing.T, dir string) {
			edit(t, file(dir, "face-a", "dek.wrapped"), func(d []byte) []byte { return d[:9] })
		}, secure.ErrFormat},
		{"key is gone", func(t *testing.T, dir string) { os.Remove(file(dir, "face-a", "dek.wrapped")) }, fs.ErrNotExist},
		{"weights cut off", func(t *testing.T, dir string) {
			edit(t, file(dir, "face-a", embed), func(d []byte) []byte { return d[:len(d)/2] })
		}, secure.ErrTampered},
		{"weights emptied", func(t *testing.T, dir string) {
			edit(t, file(dir, "face-a", embed), func(d []byte) []byte { return nil })
		}, secure.ErrFormat},
		{"weights are gone", func(t *testing.T, dir string) { os.Remove(file(dir, "face-a", embed)) }, fs.ErrNotExist},
		{"weights made larger", func(t *testing.T, dir string) {
			edit(t, file(dir, "face-a", embed), func(d []byte) []byte { return append(d, 0) })
		}, nil},
		{"manifest made endless", func(t *testing.T, dir string) {
			if err := os.Truncate(file(dir, "face-a", "bundle.json.sealed"), 1<<40); err != nil {
				t.Skip("no sparse files here")
			}
		}, nil},
		{"two files of a bundle exchanged", func(t *testing.T, dir string) { swap(t, file(dir, "face-a", embed), file(dir, "face-a", detect)) }, nil},
		{"a file of another bundle", func(t *testing.T, dir string) { swap(t, file(dir, "face-a", embed), file(dir, "face-b", embed)) }, nil},
		{"the key of another bundle", func(t *testing.T, dir string) {
			swap(t, file(dir, "face-a", "dek.wrapped"), file(dir, "face-b", "dek.wrapped"))
		}, secure.ErrTampered},
		{"the folder of another bundle", func(t *testing.T, dir string) {
			if err := errors.Join(os.RemoveAll(filepath.Join(dir, "face-a")), os.Rename(filepath.Join(dir, "face-b"), filepath.Join(dir, "face-a"))); err != nil {
				t.Fatal(err)
			}
		}, secure.ErrTampered},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, dir, _ := imported(t)
			if err := v.Import(bundle(t, "face-b")); err != nil {
				t.Fatal(err)
			}
			c.do(t, dir)
			_, _, err := readAll(v, "face-a")
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), "face-a") {
				t.Fatalf("%v, want %v that names the bundle", err, c.is)
			}
			if !strings.Contains(err.Error(), "import it again") {
				t.Errorf("%v does not say what to do", err)
			}
			if err := errors.Join(v.Remove("face-a"), v.Import(bundle(t, "face-a"))); err != nil {
				t.Fatalf("the remedy does not help: %v", err)
			}
			mustRead(t, v, "face-a")
		})
	}
}

func TestAnotherDevicesKeysOpenNothing(t *testing.T) {
	_, dir, _ := imported(t)
	v := open(t, dir, ring(t))
	if _, err := v.Load("face-a"); !errors.Is(err, secure.ErrTampered) {
		t.Errorf("%v, want that the key does not open", err)
	}
	if err := v.Import(bundle(t, "face-a")); err == nil {
		t.Error("a bundle that does not open was replaced without a word")
	}
}

func TestUnknownBundles(t *testing.T) {
	v, _, _ := imported(t)
	for _, id := range []string{"", "none", "..", "../models/face-a", "face-a/", "/etc", ".import-1", "FACE-A"} {
		_, err := v.Load(id)
		_, size := v.SealedBytes(id)
		for what, err := range map[string]error{"load": err, "size": size, "remove": v.Remove(id)} {
			if !errors.Is(err, vault.ErrNotFound) {
				t.Errorf("%s of %q: %v", what, id, err)
			}
		}
	}
	m, err := v.Load("face-a")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "none.onnx", "bundle.json", "../face-a/dek.wrapped"} {
		if w, err := m.Open(name); err == nil || w != nil {
			t.Errorf("file %q was opened", name)
		}
	}
	mustRead(t, v, "face-a")
}

func TestOpenErrors(t *testing.T) {
	r := ring(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := vault.Open(file, r); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file in the place of the folder: %v", err)
	}
}
