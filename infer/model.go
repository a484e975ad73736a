package infer

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// Model is a bundle: its manifest and a way to its files. It holds no weights; they are read when an engine is made.
type Model struct {
	Manifest *Manifest
	Open     func(name string) (Weights, error) // one file of the bundle, decrypted and in memory
}

// Weights is the content of one model file in memory that its owner wipes on Close.
type Weights interface {
	Bytes() []byte
	Close() error
}

// ErrChecksum means that a file of a bundle is not the one that bundle.json pins.
var ErrChecksum = errors.New("checksum differs from bundle.json")

// VerifyFile checks a file's bytes against the manifest.
func (m *Manifest) VerifyFile(name string, data []byte) error {
	spec, ok := m.Files[name]
	if !ok {
		return fmt.Errorf("file %q is not part of bundle %s", name, m.ID)
	}
	sum := sha256.Sum256(data)
	if want, _ := hex.DecodeString(spec.SHA256); int64(len(data)) != spec.Bytes || subtle.ConstantTimeCompare(sum[:], want) != 1 {
		return fmt.Errorf("bundle %s, file %s: %w (%d bytes, sha256 %x; expected %d bytes, %s): fetch the file again from its source",
			m.ID, name, ErrChecksum, len(data), sum[:], spec.Bytes, spec.SHA256)
	}
	return nil
}

// ReadFile reads one file of an unpacked bundle and verifies it.
func (m *Manifest) ReadFile(dir fs.FS, name string) ([]byte, error) {
	spec, ok := m.Files[name]
	if !ok {
		return nil, fmt.Errorf("file %q is not part of bundle %s", name, m.ID)
	}
	f, err := openPlain(dir, name)
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w", m.ID, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, spec.Bytes+1))
	if err != nil {
		return nil, fmt.Errorf("bundle %s, file %s: %w", m.ID, name, err)
	}
	if err := m.VerifyFile(name, data); err != nil {
		return nil, err
	}
	return data, nil
}

// FromDir is a Model over an unpacked bundle, or over a tar of one (see OpenTar). manifest may be nil, then bundle.json is
// read from dir; a preset passes its own and needs only the weights there. Files that a preset leaves open are pinned in
// the manifest to what lies in dir now.
func FromDir(dir fs.FS, manifest *Manifest) (*Model, error) {
	if manifest == nil {
		f, err := openPlain(dir, ManifestName)
		if err != nil {
			return nil, fmt.Errorf("not a bundle: %w", err)
		}
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, MaxManifestBytes+1))
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", ManifestName, err)
		}
		if manifest, err = ParseManifest(data); err != nil {
			return nil, err
		}
	}
	for name, spec := range manifest.Files {
		if !spec.open() {
			continue
		}
		var err error
		if manifest.Files[name], err = pin(dir, name); err != nil {
			return nil, fmt.Errorf("bundle %s: %w", manifest.ID, err)
		}
	}
	open := func(name string) (Weights, error) {
		data, err := manifest.ReadFile(dir, name)
		if err != nil {
			return nil, err
		}
		return plainWeights(data), nil
	}
	return &Model{Manifest: manifest, Open: open}, nil
}

// openPlain opens a file, but no device or pipe, which could block for ever.
func openPlain(dir fs.FS, name string) (fs.File, error) {
	info, err := fs.Stat(dir, name)
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errors.New("not a plain file")}
	}
	if err != nil {
		return nil, err
	}
	return dir.Open(name)
}

// pin describes a file as it is.
func pin(dir fs.FS, name string) (FileSpec, error) {
	f, err := openPlain(dir, name)
	if err != nil {
		return FileSpec{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, MaxModelBytes+1))
	if err != nil {
		return FileSpec{}, fmt.Errorf("file %s: %w", name, err)
	}
	if n == 0 || n > MaxModelBytes {
		return FileSpec{}, fmt.Errorf("file %s: %d bytes: above 0, at most %d", name, n, MaxModelBytes)
	}
	return FileSpec{SHA256: hex.EncodeToString(h.Sum(nil)), Bytes: n}, nil
}

// plainWeights are weights that were no secret: they come from an open folder.
type plainWeights []byte

func (w plainWeights) Bytes() []byte { return w }
func (w plainWeights) Close() error  { return nil }
