package ort_test

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vigil/infer/infertest"
	"vigil/infer/ort"
)

func TestProviderOptionsAreChecked(t *testing.T) {
	disk := t.TempDir()
	for _, c := range []struct {
		p    ort.Provider
		want string // part of the error; "" for none
	}{
		{ort.Provider{}, ""},
		{ort.Provider{Name: ort.CUDA, MemoryLimitBytes: 1 << 30, Graphs: true}, ""},
		{ort.Provider{Name: ort.TensorRT, BuilderLevel: 5, EngineCache: "/dev/shm"}, ""},
		{ort.Provider{Name: ort.TensorRT, EngineCache: disk}, "lies on a disk"},
		{ort.Provider{Name: ort.TensorRT, EngineCache: disk + "/none"}, "no such file"},
		{ort.Provider{Name: ort.TensorRT, BuilderLevel: 6}, "0 to 5"},
		{ort.Provider{Name: ort.CUDA, DeviceID: -1}, "0 or more"},
		{ort.Provider{Name: ort.CUDA, Library: "/x.so"}, "built in"},
		{ort.Provider{Name: "rocket"}, "path of its library"},
	} {
		if disk := c.p.EngineCache != "" && !onDisk(t, disk); disk && strings.Contains(c.want, "disk") {
			t.Skip("the temporary folder lies in memory")
		}
		err := c.p.Check()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", c.p, err, c.want)
		}
		if err != nil {
			if _, opened := ort.Open(ort.Options{Provider: c.p, Library: "/none"}); opened == nil || opened.Error() != err.Error() {
				t.Errorf("%+v: opening says %v", c.p, opened)
			}
		}
	}
}

func onDisk(t *testing.T, dir string) bool {
	t.Helper()
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil {
		return true
	}
	return fs.Type != unix.TMPFS_MAGIC
}

func TestMissingProvidersAreNamed(t *testing.T) {
	lib := infertest.Library(t)
	for _, name := range []string{ort.CUDA, ort.TensorRT} {
		rt, err := ort.Open(ort.Options{Library: lib, Provider: ort.Provider{Name: name}})
		if err == nil {
			mustClose(t, "runtime", rt)
			t.Skipf("this ONNX Runtime has %s", name)
		}
		if !errors.Is(err, ort.ErrNoProvider) || !strings.Contains(err.Error(), "built without") && !strings.Contains(err.Error(), "provider beside it") {
			t.Errorf("%s: %v", name, err)
		}
	}
	rt, err := ort.Open(ort.Options{Library: lib}) // nothing is left behind
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, "runtime", rt)
}

// pluginLibrary compiles the stand-in for a vendor's provider library.
func pluginLibrary(t *testing.T) string {
	t.Helper()
	so := filepath.Join(t.TempDir(), "libplugin.so")
	if out, err := exec.CommandContext(t.Context(), "cc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", so, "testdata/plugin.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return so
}

func TestProviderLibraryIsRegisteredByPath(t *testing.T) {
	lib, so := infertest.Library(t), pluginLibrary(t)
	keep := infertest.Runtime(t)
	before := ort.MendedSignals()
	for range 2 { // registered once, refused twice
		_, err := ort.Open(ort.Options{Library: lib, Provider: ort.Provider{Name: "Standin", Library: so, Options: map[string]string{"a": "1"}}})
		if !errors.Is(err, ort.ErrNoProvider) || !strings.Contains(err.Error(), "offers no device") || !strings.Contains(err.Error(), so) {
			t.Errorf("a library without devices: %v", err)
		}
	}
	if n := ort.MendedSignals() - before; n != 1 {
		t.Errorf("%d signal handlers mended, the library installs 1", n)
	}
	if _, err := ort.Open(ort.Options{Library: lib, Provider: ort.Provider{Name: "Standin", Library: "/other.so"}}); err == nil || !strings.Contains(err.Error(), "already registered") {
		t.Errorf("another library under the same name: %v", err)
	}
	if _, err := ort.Open(ort.Options{Library: lib, Provider: ort.Provider{Name: "Missing", Library: "/none.so"}}); !errors.Is(err, ort.ErrNoProvider) {
		t.Errorf("a library that is not there: %v", err)
	}
	if name := keep.Name(); !strings.HasSuffix(name, "CPU") {
		t.Errorf("the runtime beside it: %s", name)
	}
}
