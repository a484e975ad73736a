package infer_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"vigil/infer"
)

// entry is one entry of a test's tar.
type entry struct {
	name, data string
	kind       byte
}

func packed(t testing.TB, list ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range list {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Size: int64(len(e.data)), Mode: 0o644}
		if e.kind == tar.TypeSymlink || e.kind == tar.TypeLink {
			h.Linkname, h.Size = e.data, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, e.data); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func openTar(data []byte) (fs.FS, error) {
	return infer.OpenTar(bytes.NewReader(data), int64(len(data)))
}

func TestTarIsABundle(t *testing.T) {
	model, err := infer.FromDir(fstest.MapFS{"d.onnx": {Data: []byte("test")}}, parse(t, good))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := infer.WriteTar(&b, []byte(good), model); err != nil {
		t.Fatal(err)
	}
	written := bytes.Clone(b.Bytes())
	b.Reset()
	if err := infer.WriteTar(&b, []byte(good), model); err != nil || !bytes.Equal(written, b.Bytes()) {
		t.Errorf("written twice it differs (%v)", err)
	}
	other := packed(t, entry{"./", "", tar.TypeDir}, entry{"./d.onnx", "test", tar.TypeReg}, entry{"./bundle.json", good, tar.TypeReg})
	for name, data := range map[string][]byte{"ours": written, "of tar -C DIR .": other} {
		dir, err := openTar(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		m, err := infer.FromDir(dir, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for range 2 { // it can be read again
			w, err := m.Open("d.onnx")
			if err != nil || string(w.Bytes()) != "test" {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := dir.Open("nothing"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a file that is not there: %v", name, err)
		}
	}
}

func TestTarRefuses(t *testing.T) {
	fine := entry{"a.onnx", "test", tar.TypeReg}
	var many []entry
	for i := range 80 {
		many = append(many, entry{"f" + strings.Repeat("x", i), "", tar.TypeReg})
	}
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"nothing", nil, "empty"},
		{"text", []byte(strings.Repeat("no tar at all ", 100)), "pack it with"},
		{"compressed", append([]byte{0x1f, 0x8b, 8, 0}, make([]byte, 2000)...), "without compression"},
		{"above", packed(t, entry{"../a.onnx", "x", tar.TypeReg}), "plain names"},
		{"absolute", packed(t, entry{"/etc/passwd", "x", tar.TypeReg}), "plain names"},
		{"folder", packed(t, entry{"sub/", "", tar.TypeDir}), "plain files"},
		{"file in a folder", packed(t, entry{"sub/a.onnx", "x", tar.TypeReg}), "plain names"},
		{"hidden", packed(t, entry{".a", "x", tar.TypeReg}), "plain names"},
		{"symbolic link", packed(t, entry{"a.onnx", "/etc/shadow", tar.TypeSymlink}), "no links"},
		{"hard link", packed(t, fine, entry{"b.onnx", "a.onnx", tar.TypeLink}), "no links"},
		{"device", packed(t, entry{"null", "", tar.TypeChar}), "devices"},
		{"twice", packed(t, fine, fine), "twice"},
		{"twice in two ways", packed(t, fine, entry{"./a.onnx", "x", tar.TypeReg}), "twice"},
		{"too many", packed(t, many...), "entries"},
		{"cut in a file", packed(t, entry{"a.onnx", strings.Repeat("x", 2000), tar.TypeReg})[:1000], ""},
	} {
		if _, err := openTar(c.data); !errors.Is(err, infer.ErrTar) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error about %q", c.name, err, c.want)
		}
	}
}

func FuzzOpenTar(f *testing.F) {
	f.Add(packed(f, entry{"bundle.json", good, tar.TypeReg}, entry{"d.onnx", "test", tar.TypeReg}))
	f.Add(packed(f, entry{"./", "", tar.TypeDir}, entry{"./a", "x", tar.TypeReg}))
	f.Add(packed(f, entry{"a", "/etc/shadow", tar.TypeSymlink}))
	f.Add([]byte("no tar"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir, err := openTar(data)
		if err != nil {
			if !errors.Is(err, infer.ErrTar) {
				t.Fatal(err)
			}
			return
		}
		if m, err := infer.FromDir(dir, nil); err == nil {
			for name := range m.Manifest.Files {
				if w, err := m.Open(name); err == nil {
					w.Close()
				}
			}
		}
	})
}
