// Package storetest opens stores for tests of every room. It is imported by
// tests and the demo only. A store that Open gave ends with a check of the whole
// file: problems fail the test, and the file is kept and its place is logged.
// Keys come from a random root secret in memory; no TPM is involved. What it
// opens it closes in the test's cleanup; it starts no goroutines.
package storetest

import (
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"testing"

	"vigil/secure"
	"vigil/secure/mem"
	"vigil/store"
)

// Device is the device id that Keyring's keys are bound to.
const Device = "storetest-device"

// Keyring returns a key ring over a random root, closed by the test's cleanup.
func Keyring(t testing.TB) *secure.Keyring {
	t.Helper()
	root := make([]byte, secure.RootBytes)
	rand.Read(root)
	keyring, err := NewKeyring(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keyring.Close() })
	return keyring
}

// NewKeyring makes a key ring for a root secret of secure.RootBytes bytes, which
// it zeroes. With wrapped KEKs it opens those, else it makes new ones.
func NewKeyring(root []byte, wrapped []secure.WrappedKEK) (*secure.Keyring, error) {
	buf, err := mem.FromBytes(root)
	if err != nil {
		return nil, err
	}
	defer buf.Close()
	if wrapped == nil {
		if wrapped, err = secure.GenerateKEKs(buf, Device, secure.Purposes()...); err != nil {
			return nil, err
		}
	}
	return secure.NewKeyring(buf, Device, wrapped)
}

// Open opens a store for a test. A Path or Keyring that opts lacks is made. The
// cleanup closes the store and checks the file.
func Open(t testing.TB, opts store.Options) *store.Store {
	t.Helper()
	if opts.Keyring == nil {
		opts.Keyring = Keyring(t)
	}
	if opts.Path == "" {
		opts.Path = filepath.Join(t.TempDir(), "vigil.db")
	}
	s, err := store.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("cannot close store: %v", err)
		}
		Check(t, opts.Path, opts.Keyring)
	})
	return s
}

// Check fails the test when the store at path, which must be closed, has a
// problem, and then keeps a copy of the file.
func Check(t testing.TB, path string, keyring *secure.Keyring) store.Report {
	t.Helper()
	report, err := store.Check(path, keyring)
	if err != nil {
		t.Errorf("cannot check store: %v", err)
		return report
	}
	for _, p := range report.Problems {
		t.Errorf("store problem: %s/%s: %s", p.Bucket, p.Key, p.Problem)
	}
	if !report.OK() {
		t.Logf("a copy of the store is at %s", keep(t, path))
	}
	return report
}

// keep copies the file to where the test's cleanup does not reach.
func keep(t testing.TB, path string) string {
	t.Helper()
	src, err := os.Open(path)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer src.Close()
	dst, err := os.CreateTemp("", "vigil-store-*.db")
	if err != nil {
		t.Error(err)
		return ""
	}
	defer dst.Close()
	if _, err := io.Copy(dst, src); err != nil {
		t.Error(err)
	}
	return dst.Name()
}
