//go:build tensorrt

// NVIDIA's real libraries, without a GPU: what they say of themselves, what they refuse, and how that reads.
package trt_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vigil/infer/chain"
	"vigil/infer/infertest"
	"vigil/infer/trt"
)

// TestTheLeanRuntimes say their version, and without a driver refuse with a number, which becomes words.
func TestTheLeanRuntimes(t *testing.T) {
	for folder, want := range map[string]string{"10": "TensorRT 10.16.1", "11": "TensorRT 11.4.0"} {
		t.Run(folder, func(t *testing.T) {
			dir := filepath.Join(infertest.Root(t), ".cache", "trt", "lean", folder)
			if _, err := os.Stat(dir); err != nil {
				t.Skip("no lean runtime: run `scripts/trt --libraries` on x86-64 with pip; it says what it cannot fetch")
			}
			l, err := trt.Inspect(dir)
			if err != nil {
				t.Fatal(err)
			}
			if l.String() != want || l.Generation != folder || l.Parser != "" || l.Headers == "" {
				t.Errorf("%+v", l)
			}
			t.Logf("%v (%d) by headers %s, CUDA runtime %d, driver %d, device %q", l, l.Version, l.Headers, l.CUDA, l.Driver, l.Compute)
			if l.Compute != "" {
				t.Skip("this machine has a GPU: nothing is refused")
			}
			_, err = trt.Open(trt.Options{Library: dir})
			if !errors.Is(err, trt.ErrNoDriver) || !strings.Contains(err.Error(), "CUDA initialization failure with error: 35") {
				t.Errorf("error %v", err)
			}
			if a := trt.Probe(dir); a.State != chain.No || a.Reason != err.Error() {
				t.Errorf("probe %+v", a)
			}
			t.Log(err)
		})
	}
}

// rtx is the folder of TensorRT-RTX.
func rtx(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(infertest.Root(t), ".cache", "rtx", "lib")
	if _, err := os.Stat(filepath.Join(dir, "libtensorrt_rtx.so")); err != nil {
		t.Skip("no TensorRT-RTX: run `make setup` on x86-64 with pip; it says what it cannot fetch")
	}
	return dir
}

// TestRTX says what it is, and refuses to run without a driver.
func TestRTX(t *testing.T) {
	l, err := trt.Inspect(rtx(t))
	if err != nil {
		t.Fatal(err)
	}
	if l.String() != "TensorRT-RTX 1.7.1" || l.Generation != "rtx" || l.Parser == "" || l.CUDA < 13000 {
		t.Errorf("%+v", l)
	}
	if l.Compute != "" {
		t.Skip("this machine has a GPU")
	}
	_, err = trt.Open(trt.Options{Library: rtx(t)})
	if !errors.Is(err, trt.ErrNoDriver) {
		t.Errorf("error %v", err)
	}
	t.Log(err)
}
