package secure

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vigil/secure/mem"
	"vigil/secure/tpm"
)

// Options say how a device is provisioned. The zero value is the default.
type Options struct {
	// PCRs the root secret is sealed to: ascending, 0 to 23, SHA-256 bank.
	// Default {7}, the Secure Boot state (TCG PC Client Firmware Profile).
	PCRs []uint
}

// Provision makes the identity of this machine in dir (created if missing, mode
// 0700) and opens it. It refuses with ErrProvisioned when there is one already.
// Killed at any moment, it leaves the whole identity or none: the next call
// starts over, and Open never takes a half one. On success the Device owns t; on
// failure t stays the caller's. ctx is looked at between TPM commands.
//
// Provisioning trusts the TPM that answers; do it where nobody else is on its
// bus. Two calls for one dir exclude each other by a lock on it.
func Provision(ctx context.Context, t *tpm.TPM, dir string, o Options) (*Device, error) {
	return provision(ctx, t, dir, o, diskFS{})
}

func provision(ctx context.Context, t *tpm.TPM, dir string, o Options, disk stateFS) (*Device, error) {
	if o.PCRs == nil {
		o.PCRs = []uint{7}
	}
	if err := tpm.CheckPCRs(o.PCRs); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot provision: %w", err)
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unlock() }() // closing the file frees the lock in any case
	identity, staging := filepath.Join(dir, identityDir), filepath.Join(dir, stagingDir)
	if _, err := os.Lstat(identity); err == nil {
		return nil, fmt.Errorf("cannot provision %s: %w: to start anew, which makes all its data unreadable, erase %s", dir, ErrProvisioned, identity)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot provision: %w", err)
	}
	// What an interrupted call left was never used.
	if err := os.RemoveAll(staging); err != nil {
		return nil, fmt.Errorf("cannot provision: %w", err)
	}
	d, err := stage(ctx, t, dir, o, disk)
	if err != nil {
		os.RemoveAll(staging)
		return nil, err
	}
	return d, nil
}

// stage builds the identity aside, proves that it opens, and moves it in place.
func stage(ctx context.Context, t *tpm.TPM, dir string, o Options, disk stateFS) (*Device, error) {
	state, keys, err := makeIdentity(ctx, t, o)
	if err != nil {
		return nil, err
	}
	identity, staging := filepath.Join(dir, identityDir), filepath.Join(dir, stagingDir)
	if err := writeIdentity(disk, staging, state, keys); err != nil {
		return nil, fmt.Errorf("cannot provision: %w", err)
	}
	d, err := openIdentity(ctx, t, staging)
	if err != nil {
		return nil, fmt.Errorf("cannot provision: the new identity does not open: %w", err)
	}
	done := false
	defer func() {
		if !done {
			d.release()
		}
	}()
	if err := errors.Join(disk.rename(staging, identity), syncDir(dir)); err != nil {
		return nil, fmt.Errorf("cannot provision: %w", err)
	}
	done = true
	return d, nil
}

// makeIdentity makes all keys. What it returns holds no secret in clear.
func makeIdentity(ctx context.Context, t *tpm.TPM, o Options) (state deviceState, keys keysState, err error) {
	if state.SRK, err = t.CreateSRK(); err != nil {
		return state, keys, err
	}
	root, err := newRoot(t)
	if err != nil {
		return state, keys, err
	}
	defer root.Close()
	if err = ctx.Err(); err != nil {
		return state, keys, err
	}
	if state.Root, err = t.Seal(root, o.PCRs); err != nil {
		return state, keys, err
	}
	auth, err := signingAuth(root)
	if err != nil {
		return state, keys, err
	}
	defer auth.Close()
	if state.TLS, err = t.CreateSigningKey(auth); err != nil {
		return state, keys, err
	}
	public, err := tpm.SigningPublic(state.TLS)
	if err != nil {
		return state, keys, err
	}
	if state.Device, err = deviceID(public); err != nil {
		return state, keys, err
	}
	keys.Device = state.Device
	keys.Keys, err = GenerateKEKs(root, state.Device, Purposes()...)
	return state, keys, err
}

// newRoot makes a root secret of 32 bytes out of the kernel's and the TPM's
// random bytes, so that a weak one of the two does no harm.
func newRoot(t *tpm.TPM) (*mem.Buffer, error) {
	seed, err := mem.New(2 * RootBytes)
	if err != nil {
		return nil, err
	}
	defer seed.Close()
	rand.Read(seed.Bytes()[:RootBytes])
	if err := t.Random(seed.Bytes()[RootBytes:]); err != nil {
		return nil, err
	}
	var root []byte
	erasing(func() { root, err = hkdf.Key(sha256.New, seed.Bytes(), nil, "vigil/1 root secret", RootBytes) })
	if err != nil {
		return nil, fmt.Errorf("cannot derive the root secret: %v", err)
	}
	return mem.FromBytes(root)
}

// writeIdentity writes both files into a new folder.
func writeIdentity(disk stateFS, staging string, state deviceState, keys keysState) error {
	rawState, err := encodeState(state)
	if err != nil {
		return err
	}
	rawKeys, err := encodeState(keys)
	if err != nil {
		return err
	}
	if err := disk.makeDir(staging); err != nil {
		return err
	}
	if err := disk.writeFile(filepath.Join(staging, keysFile), rawKeys); err != nil {
		return err
	}
	return disk.writeFile(filepath.Join(staging, deviceFile), rawState)
}

// lockDir keeps other provisioning processes out of dir until unlock.
func lockDir(dir string) (unlock func() error, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot provision: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot provision %s: another process is doing it: %v", dir, err)
	}
	return f.Close, nil
}
