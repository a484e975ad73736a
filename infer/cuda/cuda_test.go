package cuda_test

import (
	"os"
	"strings"
	"testing"

	"vigil/infer/chain"
	"vigil/infer/cuda"
)

// TestProbe: with or without the tag, with or without a driver, it answers and says why.
func TestProbe(t *testing.T) {
	d := cuda.Probe()
	t.Logf("%+v", d)
	_, err := os.Stat("/dev/nvidia0")
	switch {
	case strings.Contains(d.Reason, "not part of this build"):
		if d.State != chain.No || d.Devices != 0 {
			t.Errorf("%+v", d)
		}
	case err == nil:
		if d.State == chain.Yes && (d.Name == "" || d.Compute == "0.0" || d.Driver < 11000 || d.Bytes == 0) {
			t.Errorf("a device without properties: %+v", d)
		}
	default:
		if d.State == chain.Yes || d.Reason == "" {
			t.Errorf("a device on a machine without one: %+v", d)
		}
	}
}
