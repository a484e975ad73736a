package daemontest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"vigil/infer"
)

// WriteManifest writes bundle.json into dir.
func WriteManifest(t testing.TB, dir string, m *infer.Manifest) {
	t.Helper()
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, infer.ManifestName), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// UseDetector640 makes a bundle in dir detect with another YuNet model of 640x640 pixels, with its right checksum.
func UseDetector640(t testing.TB, m *infer.Manifest, dir, onnx string) {
	t.Helper()
	data, err := os.ReadFile(onnx)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(onnx)
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	m.ID += "-640"
	m.Files[name] = infer.FileSpec{SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(data))}
	s := m.Stage("detect")
	delete(m.Files, s.File)
	const side = 640
	s.File = name
	s.Inputs = []infer.Tensor{{Name: "input", Type: "float32", Shape: []int64{1, 3, side, side}, Layout: "NCHW"}}
	s.Outputs = nil
	for _, o := range []struct {
		name  string
		width int64
	}{{"cls", 1}, {"obj", 1}, {"bbox", 4}, {"kps", 10}} {
		for _, stride := range []int64{8, 16, 32} {
			cells := (side / stride) * (side / stride)
			s.Outputs = append(s.Outputs, infer.Tensor{Name: fmt.Sprintf("%s_%d", o.name, stride), Type: "float32", Shape: []int64{1, cells, o.width}})
		}
	}
}
