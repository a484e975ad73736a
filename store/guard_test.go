package store

import (
	"errors"
	"testing"

	"go.etcd.io/bbolt"
)

// TestGuard tells bbolt's panics from those of others.
func TestGuard(t *testing.T) {
	cleaned := 0
	err := guarded("f", func() error {
		var btx bbolt.Tx // has no file: reading it is a nil dereference in bbolt
		btx.Size()
		return nil
	}, func(inBolt bool) {
		if inBolt {
			cleaned++
		}
	})
	if !errors.Is(err, ErrCorrupt) || cleaned != 1 {
		t.Errorf("panic in bbolt: %v, cleaned up %d times", err, cleaned)
	}
	defer func() {
		if r := recover(); r != "mine" || cleaned != 2 {
			t.Errorf("recovered %v, cleaned up %d times", r, cleaned)
		}
	}()
	guarded("f", func() error { panic("mine") }, func(inBolt bool) {
		if !inBolt {
			cleaned++
		}
	})
	t.Error("the panic was swallowed")
}

// TestFullIsRecognised covers the texts that bbolt makes of errors.
func TestFullIsRecognised(t *testing.T) {
	for text, want := range map[string]bool{
		"file resize error: no space left on device": true,
		"file resize error: file too large":          true,
		"disk quota exceeded":                        true,
		"database reached maximum size":              true,
		"input/output error":                         false,
	} {
		if got := isFull(errors.New(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
