// Package daemontest makes provisioned devices on a software TPM for tests of the daemon. It is imported from tests only.
//
// Promises: a device's TPM and folders are gone when the test ends; the store of every device is checked last, and the
// test fails on what is found. What is not installed skips the test with one line that names it.
package daemontest

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/infer"
	"vigil/infer/infertest"
	"vigil/infer/infertest/fake"
	"vigil/secure"
	"vigil/secure/securetest"
	"vigil/secure/tpm"
	"vigil/sensors"
	"vigil/store"
)

// Device is a provisioned device that is not open.
type Device struct {
	Config config.Config
	TPMLog string // swtpm's own transcript
	CSR    []byte // request for a fleet certificate, tenant "test"

	// Runtime makes the runtime of the next Open; nil opens ONNX Runtime.
	Runtime func() infer.Runtime
	// Source stands around the sources of sensors; nil: nothing does.
	Source func(config.Sensor, sensors.Source) sensors.Source

	TPMDir  string
	stopTPM func() error
}

// StopTPM ends the software TPM; the device has none then.
func (d *Device) StopTPM() error { return d.stopTPM() }

// New provisions a device in a temporary folder. The store is checked when the test ends; the test must have closed the
// device by then.
func New(t testing.TB) *Device {
	t.Helper()
	library := infertest.Library(t)
	d := provisioned(t)
	d.Config.Runtime.Library = library
	return d
}

// NewFake is New with played models: no ONNX Runtime and no data are needed. The bundle m is imported if there is one.
func NewFake(t testing.TB, rt *fake.Runtime, m *infer.Manifest) *Device {
	t.Helper()
	d := provisioned(t)
	d.Runtime = func() infer.Runtime { return rt }
	d.Config.Models.Finger = "off" // nobody plays the models in the binary
	t.Cleanup(func() {
		if n := rt.Leaked(); n != 0 {
			t.Errorf("%d engines and tensors were left open", n)
		}
	})
	if m != nil {
		d.Import(t, fake.Write(t, m, nil), "")
	}
	return d
}

// Import imports a bundle into the closed device.
func (d *Device) Import(t testing.TB, path, preset string) {
	t.Helper()
	a := d.Open(t)
	_, err := a.ImportModel(t.Context(), path, preset)
	if err := errors.Join(err, a.Close()); err != nil {
		t.Fatal(err)
	}
}

func provisioned(t testing.TB) *Device {
	t.Helper()
	dir := t.TempDir()
	d := &Device{Config: config.Default(), TPMLog: filepath.Join(dir, "swtpm.log"), TPMDir: filepath.Join(dir, "swtpm")}
	addr, stop, err := securetest.StartSWTPM(d.TPMDir, securetest.WithLog(d.TPMLog))
	if errors.Is(err, securetest.ErrNoSWTPM) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	d.stopTPM = stop
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("swtpm: %v", err)
		}
	})
	d.Config.StateDir, d.Config.TPM.Address = filepath.Join(dir, "state"), addr
	d.Config.Runtime.Threads = 1
	d.Config.Policy.EnrollSamples = 2
	d.Config.Policy.APIDeadline = config.Duration(30 * time.Second) // slow machines and the race detector are no subject
	chip, err := tpm.Open(addr)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := secure.Provision(t.Context(), chip, d.Config.StateDir, secure.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d.CSR, err = dev.CSR("test"); err != nil {
		t.Fatal(err)
	}
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.check(t) })
	return d
}

// NewWithModel is New with the public face models imported.
func NewWithModel(t testing.TB) *Device {
	t.Helper()
	models := infertest.Data(t, "models")
	d := New(t)
	d.Import(t, models, "face")
	return d
}

// Open opens the device; the caller closes it.
func (d *Device) Open(t testing.TB) *core.Appliance {
	t.Helper()
	o := core.Options{Logger: Logger(t), Source: d.Source}
	if d.Runtime != nil {
		o.Runtime = d.Runtime()
	}
	a, err := core.Open(t.Context(), d.Config, o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Logger writes to the test's log with VIGIL_TEST_LOG set, else nowhere.
func Logger(t testing.TB) *slog.Logger {
	if os.Getenv("VIGIL_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// check verifies the closed store, the last line of every test of a device. A device whose TPM is gone or whose store
// was never made has nothing to check.
func (d *Device) check(t testing.TB) {
	if _, err := os.Stat(core.StorePath(d.Config.StateDir)); err != nil {
		return
	}
	dev, err := core.OpenDevice(t.Context(), d.Config)
	if errors.Is(err, tpm.ErrNoTPM) || errors.Is(err, tpm.ErrTPMCleared) || errors.Is(err, t.Context().Err()) {
		return
	}
	if err != nil {
		t.Errorf("check of the store: %v", err)
		return
	}
	defer dev.Close()
	r, err := store.Check(core.StorePath(d.Config.StateDir), dev.Keyring())
	if err = errors.Join(err, r.Err()); err != nil {
		t.Errorf("check of the store: %v\n%+v", err, r.Problems)
	}
}

// Pictures returns up to n pictures of a person of the public set, read into memory.
func Pictures(t testing.TB, person string, n int) [][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(infertest.Data(t, "faces", "lfw", person), "*.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < n {
		t.Skipf("the data set has %d pictures of %s, the test needs %d", len(files), person, n)
	}
	var list [][]byte
	for _, f := range files[:n] {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, data)
	}
	return list
}
