package secure

import (
	"context"
	"os"

	"vigil/secure/tpm"
)

// Opened to the tests of package secure_test, which need securetest.
var (
	EncodeState = encodeState
	DecodeState = decodeState
	DeriveAuth  = signingAuth
)

type (
	DeviceState = deviceState
	KeysState   = keysState
)

// Crash is what StoppingFS panics with: the process is gone.
type Crash struct{}

// StoppingFS is the real file system until step At, counted from 0; there it
// does the step not at all, by half, or in full, and then stops everything.
// With Err it fails the step instead.
type StoppingFS struct {
	At, Steps int
	How       int // 0 not at all, 1 by half, 2 in full
	Err       error
}

// step returns how far to go: full, or what is left before the end.
func (f *StoppingFS) step(half, full func() error) error {
	here := f.Steps == f.At
	f.Steps++
	if !here {
		return full()
	}
	if f.Err != nil {
		return f.Err
	}
	switch f.How {
	case 1:
		half()
	case 2:
		full()
	}
	panic(Crash{})
}

func nothing() error { return nil }

func (f *StoppingFS) makeDir(path string) error {
	return f.step(nothing, func() error { return diskFS{}.makeDir(path) })
}

func (f *StoppingFS) writeFile(path string, data []byte) error {
	return f.step(func() error { return os.WriteFile(path, data[:len(data)/2], 0o600) },
		func() error { return diskFS{}.writeFile(path, data) })
}

func (f *StoppingFS) rename(from, to string) error {
	return f.step(nothing, func() error { return diskFS{}.rename(from, to) })
}

// ProvisionOn is Provision on that file system.
func ProvisionOn(ctx context.Context, t *tpm.TPM, dir string, o Options, disk *StoppingFS) (*Device, error) {
	return provision(ctx, t, dir, o, disk)
}
