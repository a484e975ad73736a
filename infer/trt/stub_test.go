//go:build !tensorrt

package trt

import (
	"errors"
	"io"
	"strings"
	"testing"

	"vigil/infer/chain"
)

// TestWithoutTheTag: every way in says that it is not part of the build.
func TestWithoutTheTag(t *testing.T) {
	if _, err := Open(Options{}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("Open: %v", err)
	}
	if _, err := Inspect(""); !errors.Is(err, ErrUnsupported) {
		t.Errorf("Inspect: %v", err)
	}
	if a := Probe(""); a.State != chain.No || !strings.Contains(a.Reason, "tag tensorrt") {
		t.Errorf("Probe: %+v", a)
	}
	if Supported {
		t.Error("it says that it is supported")
	}
	if err := buildHere(Order{}, nil, nil, nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("build: %v", err)
	}
	if err := writeFrame(io.Discard, 'p', make([]byte, jsonBytes+1)); err == nil {
		t.Error("a frame that is too long is sent")
	}
}
