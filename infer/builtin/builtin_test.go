package builtin_test

import (
	"io/fs"
	"testing"

	"vigil/infer"
	"vigil/infer/builtin"
	"vigil/infer/finger"
)

// mostBytes bounds what the default models add to the binary.
const mostBytes = 6 << 20

func TestFingerIsWholeAndSmall(t *testing.T) {
	m, err := builtin.Finger()
	if err != nil {
		t.Fatal(err)
	}
	if err := finger.Check(m.Manifest); err != nil {
		t.Error(err)
	}
	dir, err := builtin.FingerFiles()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := fs.ReadDir(dir, ".")
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
		if _, listed := m.Manifest.Files[e.Name()]; !listed && e.Name() != infer.ManifestName {
			t.Errorf("%s is in the binary but not in the manifest", e.Name())
		}
	}
	if total > mostBytes {
		t.Errorf("the bundle has %d bytes, at most %d", total, mostBytes)
	}
	for name := range m.Manifest.Files {
		w, err := m.Open(name) // checks the SHA-256
		if err != nil {
			t.Error(err)
			continue
		}
		w.Close()
	}
	for _, s := range m.Manifest.Stages {
		for _, v := range s.Variants {
			if v.Gate.Verdict != infer.VerdictPassed {
				t.Errorf("stage %s: %s is %s: only what passed its gate is built in", s.Name, v.File, v.Gate.Verdict)
			}
		}
	}
}
