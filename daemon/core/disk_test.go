package core_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/store"
)

// TestAFullDiskLosesNothingAcknowledged runs a device on a small file system until it is full: what fails says so, what
// was acknowledged stays, and the device works again when there is room.
func TestAFullDiskLosesNothingAcknowledged(t *testing.T) {
	d := daemontest.NewWithModel(t)
	small := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=12m"); err != nil {
		t.Skipf("cannot mount a small file system (needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	state := filepath.Join(small, "state")
	if err := os.CopyFS(state, os.DirFS(d.Config.StateDir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(state, 0o700); err != nil {
		t.Fatal(err)
	}
	d.Config.StateDir = state
	a := d.Open(t)
	pics := daemontest.Pictures(t, ann, 6)
	e, err := a.Enroll(t.Context(), "Ann", pics[:3])
	if err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(small, "filler")
	fill(t, filler)
	failed := false
	for range 2000 { // the database file has some room of its own
		if _, err = a.Identify(t.Context(), pics[4]); err != nil {
			failed = true
			break
		}
	}
	if !failed || !errors.Is(err, store.ErrFull) {
		t.Fatalf("decisions on a full disk: %v", err)
	}
	if s := a.Status(); s.State != "degraded" {
		t.Errorf("status on a full disk: %+v", s.Degraded)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	list := must[[]core.Decision](t)(a.Identify(t.Context(), pics[4]))
	if list[0].Subject != e.Subject {
		t.Errorf("after room was made: %+v", list)
	}
	if s := a.Status(); s.State != "ready" {
		t.Errorf("status after room was made: %v", s.Degraded)
	}
	closeApp(t, a)
	dev, err := core.OpenDevice(t.Context(), d.Config)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if r, err := store.Check(core.StorePath(state), dev.Keyring()); err != nil || r.Err() != nil {
		t.Errorf("check: %v %v", err, r.Err())
	}
}

// fill writes a file until nothing more fits.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
