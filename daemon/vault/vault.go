// Package vault keeps model bundles at rest: every file, bundle.json too, as an envelope under a key of the bundle, which
// is wrapped under the device's models key.
//
// Promises: weights are decrypted into locked memory only, never to a file; a file that was altered, moved or exchanged
// does not open; an import is whole or not there, also after a crash. Calls block on the disk. The caller owns what Open
// returns; the Keyring stays the caller's.
//
// It does not judge whether a model is any good: whoever imports runs it first.
package vault

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"vigil/infer"
	"vigil/secure"
	"vigil/secure/mem"
)

// Errors of the vault.
var (
	// ErrNotFound: no bundle of that id was imported.
	ErrNotFound = errors.New("no such bundle")
	// ErrExists: a different bundle with this id is there already.
	ErrExists = errors.New("a bundle with this id is there already")
)

const (
	schema  = 1
	keyFile = "dek.wrapped"
	sealed  = ".sealed"

	// Folders on the way in and on the way out; what a crash leaves of them is removed by Open.
	importStart = ".import-"
	removeStart = ".remove-"
)

// Vault is a folder of sealed bundles.
type Vault struct {
	dir  string
	ring *secure.Keyring
}

// Open makes the folder if it is missing and removes what a crashed import or removal left behind.
func Open(dir string, ring *secure.Keyring) (*Vault, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the model folder: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the model folder: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), importStart) || strings.HasPrefix(e.Name(), removeStart) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return nil, fmt.Errorf("cannot remove what a crash left of a bundle: %w", err)
			}
		}
	}
	return &Vault{dir: dir, ring: ring}, nil
}

func aad(id, name string) secure.AAD {
	return secure.AAD{Bucket: "bundle/" + id, Key: name, Schema: schema}
}

// Import seals every file of the model. A bundle that is there already with the same manifest is left as it is. Errors:
// infer.ErrManifest, infer.ErrChecksum, ErrExists, and those of a bundle with this id that does not open.
func (v *Vault) Import(m *infer.Model) (err error) {
	id := m.Manifest.ID
	if err := m.Manifest.Validate(); err != nil { // its names become names of files
		return fmt.Errorf("cannot import %q: %w: %w", id, infer.ErrManifest, err)
	}
	manifest, err := json.Marshal(m.Manifest)
	if err != nil {
		return fmt.Errorf("cannot write the manifest of %s: %w", id, err)
	}
	switch same, err := v.has(id, manifest); {
	case err == nil && same:
		return nil
	case err == nil:
		return fmt.Errorf("cannot import %s: %w: remove it first or give the new one another id", id, ErrExists)
	case !errors.Is(err, ErrNotFound):
		return err
	}
	tmp, err := os.MkdirTemp(v.dir, importStart)
	if err != nil {
		return fmt.Errorf("cannot import %s: %w", id, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := v.seal(tmp, m, manifest); err != nil {
		return fmt.Errorf("cannot import %s: %w", id, err)
	}
	return move(tmp, filepath.Join(v.dir, id))
}

// has reports whether the bundle is there with this manifest, in whatever format it was sealed.
func (v *Vault) has(id string, manifest []byte) (bool, error) {
	old, err := v.Load(id)
	if errors.Is(err, infer.ErrManifest) {
		return false, nil // of a later version of vigild
	}
	if err != nil {
		return false, err
	}
	text, err := json.Marshal(old.Manifest)
	return string(text) == string(manifest), err
}

// seal writes all files of a bundle into dir.
func (v *Vault) seal(dir string, m *infer.Model, manifest []byte) error {
	id := m.Manifest.ID
	dek, wrapped, err := v.ring.NewDEK(secure.Models, aad(id, keyFile))
	if err != nil {
		return err
	}
	defer dek.Close()
	if err := secure.WriteFileAtomic(filepath.Join(dir, keyFile), wrapped, 0o600); err != nil {
		return err
	}
	write := func(name string, data []byte) error {
		env, err := dek.Seal(data, aad(id, name))
		if err != nil {
			return err
		}
		return secure.WriteFileAtomic(filepath.Join(dir, name+sealed), env, 0o600)
	}
	for name := range m.Manifest.Files {
		w, err := m.Open(name)
		if err != nil {
			return err
		}
		err = m.Manifest.VerifyFile(name, w.Bytes())
		if err == nil {
			err = write(name, w.Bytes())
		}
		if err = errors.Join(err, w.Close()); err != nil {
			return err
		}
	}
	return write(infer.ManifestName, manifest)
}

// move renames a folder of a bundle and makes that durable.
func move(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("cannot move a bundle into place: %w", err)
	}
	return errors.Join(syncDir(filepath.Dir(from)), syncDir(filepath.Dir(to)))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// IDs lists the imported bundles.
func (v *Vault) IDs() ([]string, error) {
	entries, err := os.ReadDir(v.dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the model folder: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			ids = append(ids, e.Name())
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// Load opens a bundle. Its weights are decrypted when an engine asks for them. Errors: ErrNotFound, and those of the
// envelopes for a bundle that was tampered with.
func (v *Vault) Load(id string) (*infer.Model, error) {
	manifest, err := v.readManifest(id)
	if err != nil {
		return nil, err
	}
	m, err := infer.ParseManifest(manifest)
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w", id, err)
	}
	return &infer.Model{Manifest: m, Open: func(name string) (infer.Weights, error) {
		return v.open(m, name)
	}}, nil
}

// Remove deletes a bundle, its key first: from then on the rest cannot be read. A crash leaves the bundle whole or gone.
func (v *Vault) Remove(id string) error {
	dir, err := v.folder(id)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(v.dir, removeStart)
	if err != nil {
		return fmt.Errorf("cannot remove bundle %s: %w", id, err)
	}
	gone := filepath.Join(tmp, id)
	if err := move(dir, gone); err != nil {
		return errors.Join(fmt.Errorf("cannot remove bundle %s: %w", id, err), os.Remove(tmp))
	}
	if err := os.Remove(filepath.Join(gone, keyFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove the key of bundle %s: %w", id, err)
	}
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("cannot remove bundle %s: %w", id, err)
	}
	return syncDir(v.dir)
}

// SealedBytes is what a bundle takes on the disk.
func (v *Vault) SealedBytes(id string) (n int64, err error) {
	dir, err := v.folder(id)
	if err != nil {
		return 0, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, fmt.Errorf("cannot read bundle %s: %w", id, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			n += info.Size()
		}
	}
	return n, nil
}

var idPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,63}$`)

func (v *Vault) folder(id string) (string, error) {
	dir := filepath.Join(v.dir, id)
	if !idPattern.MatchString(id) {
		return "", fmt.Errorf("bundle %q: %w", id, ErrNotFound)
	}
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("bundle %s: %w: import it with `vigild models import`", id, ErrNotFound)
	}
	return dir, nil
}

// dek opens the key of a bundle.
func (v *Vault) dek(id, dir string) (*secure.Key, error) {
	wrapped, err := os.ReadFile(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, fmt.Errorf("bundle %s: its key is missing: remove it and import it again: %w", id, err)
	}
	dek, err := v.ring.OpenDEK(secure.Models, wrapped, aad(id, keyFile))
	if err != nil {
		return nil, fmt.Errorf("bundle %s: its key does not open (%w): remove it and import it again", id, err)
	}
	return dek, nil
}

func (v *Vault) readManifest(id string) ([]byte, error) {
	dir, err := v.folder(id)
	if err != nil {
		return nil, err
	}
	w, err := v.decrypt(id, dir, infer.ManifestName, infer.MaxManifestBytes)
	if err != nil {
		return nil, err
	}
	return append([]byte(nil), w.Bytes()...), w.Close()
}

// open decrypts one model file and checks it against the manifest.
func (v *Vault) open(m *infer.Manifest, name string) (infer.Weights, error) {
	spec, ok := m.Files[name]
	if !ok {
		return nil, fmt.Errorf("bundle %s has no file %q", m.ID, name)
	}
	dir, err := v.folder(m.ID)
	if err != nil {
		return nil, err
	}
	w, err := v.decrypt(m.ID, dir, name, spec.Bytes)
	if err != nil {
		return nil, err
	}
	if err := m.VerifyFile(name, w.Bytes()); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// weights are plaintext in locked memory.
type weights struct {
	buf *mem.Buffer
	n   int
}

// Bytes implements infer.Weights.
func (w *weights) Bytes() []byte { return w.buf.Bytes()[:w.n] }

// Close implements infer.Weights.
func (w *weights) Close() error { return w.buf.Close() }

func (v *Vault) decrypt(id, dir, name string, limit int64) (*weights, error) {
	path := filepath.Join(dir, name+sealed)
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("bundle %s, file %s cannot be read (%w): remove the bundle and import it again", id, name, err)
	}
	if info.Size() > limit+secure.EnvelopeOverhead {
		return nil, fmt.Errorf("bundle %s, file %s: %d bytes are too many: the bundle was tampered with: remove it and import it again", id, name, info.Size())
	}
	env, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w", id, err)
	}
	dek, err := v.dek(id, dir)
	if err != nil {
		return nil, err
	}
	defer dek.Close()
	buf, err := mem.New(max(1, len(env)))
	if err != nil {
		return nil, fmt.Errorf("bundle %s, file %s: %w", id, name, err)
	}
	n, err := dek.OpenInto(buf.Bytes(), env, aad(id, name))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bundle %s, file %s does not open (%w): remove the bundle and import it again", id, name, err), buf.Close())
	}
	return &weights{buf: buf, n: n}, nil
}
