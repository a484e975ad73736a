package secure

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWriteFileAtomic(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, content := range []string{"first", "", "a longer second one"} {
		if err := WriteFileAtomic(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		info, statErr := os.Stat(path)
		if err != nil || statErr != nil || string(got) != content || info.Mode().Perm() != 0o600 {
			t.Errorf("got %q, mode %v (%v)", got, info.Mode(), err)
		}
	}
	// A folder in the way makes the rename fail: nothing changes or stays.
	if err := os.MkdirAll(filepath.Join(dir, "taken", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFileAtomic(filepath.Join(dir, "taken"), []byte("x"), 0o600); err == nil {
		t.Error("replaced a folder")
	}
	if err := WriteFileAtomic(filepath.Join(dir, "missing", "file"), nil, 0o600); err == nil {
		t.Error("wrote into a folder that does not exist")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".tmp-*")); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	t.Chdir(dir)
	if err := WriteFileAtomic("relative", []byte("x"), 0o644); err != nil {
		t.Error(err)
	}
}
