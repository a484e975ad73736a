package secure

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"vigil/secure/tpm"
)

// The identity is a folder of two files inside the state folder. It appears by
// one rename, so it is there in full or not at all.
const (
	identityDir = "identity"
	stagingDir  = "identity.new"
	deviceFile  = "device.json"
	keysFile    = "keys.json"
)

const (
	stateFormat   = 1
	maxStateBytes = 1 << 20
)

// deviceState is the content of device.json: what the TPM needs to open the
// device. Nothing in it is secret.
type deviceState struct {
	Device string     `json:"device"`
	SRK    tpm.SRK    `json:"srk"`
	Root   tpm.Sealed `json:"root"`
	TLS    tpm.Blob   `json:"tls"`
}

// keysState is the content of keys.json: the wrapped KEKs. It is a file of its
// own because rotation rewrites it.
type keysState struct {
	Device string       `json:"device"`
	Keys   []WrappedKEK `json:"keys"`
}

// stateFile frames a body with its format and checksum. The checksum tells
// damage from a wrong TPM; it is no protection against who can write the file,
// that is what the TPM's and the envelopes' own authentication are for.
type stateFile struct {
	Format int             `json:"format"`
	Sum    []byte          `json:"sha256"`
	Body   json.RawMessage `json:"body"`
}

// encodeState returns the bytes of a state file that holds body.
func encodeState(body any) ([]byte, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(raw)
	return json.Marshal(stateFile{Format: stateFormat, Sum: sum[:], Body: raw})
}

// decodeState reads what encodeState wrote into body. It fails with ErrDamaged
// on anything else: unknown fields, a wrong checksum, bytes left over.
func decodeState(raw []byte, body any) error {
	if len(raw) > maxStateBytes {
		return fmt.Errorf("%w: %d bytes is too long", ErrDamaged, len(raw))
	}
	var f stateFile
	if err := strictJSON(raw, &f); err != nil {
		return fmt.Errorf("%w: %v", ErrDamaged, err)
	}
	if f.Format != stateFormat {
		return fmt.Errorf("%w: format %d, this version reads %d", ErrDamaged, f.Format, stateFormat)
	}
	if sum := sha256.Sum256(f.Body); !bytes.Equal(sum[:], f.Sum) {
		return fmt.Errorf("%w: wrong checksum", ErrDamaged)
	}
	if err := strictJSON(f.Body, body); err != nil {
		return fmt.Errorf("%w: %v", ErrDamaged, err)
	}
	return nil
}

func strictJSON(raw []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("bytes left over")
	}
	return nil
}

// readState reads the state file at path into body. Errors name the file.
func readState(path string, body any) error {
	raw, err := readBounded(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: it is missing", ErrDamaged)
	}
	if err == nil {
		err = decodeState(raw, body)
	}
	if errors.Is(err, ErrDamaged) {
		return fmt.Errorf("cannot read %s: %w: restore it from a backup of this device", path, err)
	}
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", path, err)
	}
	return nil
}

// readBounded reads at most one byte more than a state file may have.
func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxStateBytes+1))
}

// stateFS is the part of the file system that Provision changes, so that a test
// can stop it at every step.
type stateFS interface {
	makeDir(path string) error
	writeFile(path string, data []byte) error
	rename(from, to string) error
}

// diskFS is the real one; each method is durable when it returns.
type diskFS struct{}

func (diskFS) makeDir(path string) error { return os.Mkdir(path, 0o700) }

func (diskFS) writeFile(path string, data []byte) error { return WriteFileAtomic(path, data, 0o600) }

func (diskFS) rename(from, to string) error { return os.Rename(from, to) }
