package secure

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"vigil/secure/mem"
	"vigil/secure/tpm"
)

// Device is the opened identity of this machine: its keys and its TPM. It owns
// the TPM, the Keyring and the signer. Safe for concurrent use.
type Device struct {
	tpm    *tpm.TPM
	ring   *Keyring
	signer *tpm.Signer
	id     string
	pcrs   []uint
}

// Open opens the identity that Provision made in dir, with the TPM it was made
// with. On success the Device owns t; on failure t stays the caller's and holds
// nothing of this call but the SRK. ctx is looked at between TPM commands.
//
// Errors: ErrNotProvisioned, ErrDamaged (names the file), ErrTampered (a KEK is
// not of this device), and from package tpm ErrTPMCleared, ErrPCRMismatch,
// ErrLocked, ErrBlob, ErrGone.
func Open(ctx context.Context, t *tpm.TPM, dir string) (*Device, error) {
	identity := filepath.Join(dir, identityDir)
	if _, err := os.Stat(identity); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot open device in %s: %w: run vigild provision", dir, ErrNotProvisioned)
	} else if err != nil {
		return nil, fmt.Errorf("cannot open device: %w", err)
	}
	return openIdentity(ctx, t, identity)
}

// openIdentity opens the identity folder itself.
func openIdentity(ctx context.Context, t *tpm.TPM, identity string) (*Device, error) {
	state, keys, err := readIdentity(identity)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	file := filepath.Join(identity, deviceFile)
	if err := t.UseSRK(state.SRK); err != nil {
		return nil, fmt.Errorf("cannot open device (%s): %w", file, err)
	}
	root, err := t.Unseal(state.Root)
	if err != nil {
		return nil, fmt.Errorf("cannot open device (%s): %w", file, err)
	}
	defer root.Close()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d := &Device{tpm: t, id: state.Device, pcrs: state.Root.PCRs}
	if err := d.load(root, state, keys); err != nil {
		d.release()
		return nil, fmt.Errorf("cannot open device in %s: %w", identity, err)
	}
	return d, nil
}

// load opens the keyring and the signer with the root secret.
func (d *Device) load(root *mem.Buffer, state deviceState, keys keysState) error {
	var err error
	if d.ring, err = NewKeyring(root, d.id, keys.Keys); err != nil {
		return fmt.Errorf("%s: %w", keysFile, err)
	}
	auth, err := signingAuth(root)
	if err != nil {
		return err
	}
	if d.signer, err = d.tpm.LoadSigner(state.TLS, auth); err != nil {
		return fmt.Errorf("%s: %w", deviceFile, err)
	}
	// One signature proves that key and authorisation belong together.
	digest := sha256.Sum256([]byte(d.id))
	if _, err := d.signer.Sign(nil, digest[:], crypto.SHA256); err != nil {
		return fmt.Errorf("%s: %w", deviceFile, err)
	}
	return nil
}

// readIdentity reads both files and checks that they are of one device.
func readIdentity(identity string) (state deviceState, keys keysState, err error) {
	file := filepath.Join(identity, deviceFile)
	if err = readState(file, &state); err != nil {
		return state, keys, err
	}
	if err = readState(filepath.Join(identity, keysFile), &keys); err != nil {
		return state, keys, err
	}
	public, err := tpm.SigningPublic(state.TLS)
	if err != nil {
		return state, keys, fmt.Errorf("cannot read %s: %w: %w", file, ErrDamaged, err)
	}
	id, err := deviceID(public)
	if err != nil {
		return state, keys, err
	}
	if id != state.Device || id != keys.Device {
		return state, keys, fmt.Errorf("cannot read %s: %w: files of different devices were mixed", identity, ErrDamaged)
	}
	return state, keys, nil
}

// deviceID is the first 16 hex digits of the SHA-256 of the public key in
// SubjectPublicKeyInfo form.
func deviceID(public *ecdsa.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("cannot name device: %v", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:8]), nil
}

// signingAuth derives the authorisation of the TLS key, 32 hex digits, from the
// root secret: the key signs only where the root secret opens.
func signingAuth(root *mem.Buffer) (*mem.Buffer, error) {
	raw, err := derive(root, "vigil/1 tls key authorisation", "", 16)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	auth, err := mem.New(hex.EncodedLen(raw.Len()))
	if err != nil {
		return nil, err
	}
	hex.Encode(auth.Bytes(), raw.Bytes())
	return auth, nil
}

// Keyring returns the device's KEKs. It is the Device's to close.
func (d *Device) Keyring() *Keyring { return d.ring }

// Signer returns the TLS key, which never leaves the TPM: ECDSA P-256 over
// SHA-256 digests. It works until Close and blocks while the TPM is busy.
func (d *Device) Signer() crypto.Signer { return d.signer }

// DeviceID is stable as long as the identity exists: the first 16 hex digits of
// the SHA-256 of the TLS public key.
func (d *Device) DeviceID() string { return d.id }

// PCRs returns the registers that the root secret is sealed to, ascending.
func (d *Device) PCRs() []uint { return slices.Clone(d.pcrs) }

// TPMInfo says what TPM holds the keys, and whether it is a software one.
func (d *Device) TPMInfo() tpm.Info { return d.tpm.Info() }

// Ping has the TPM answer a command: proof for a watchdog that the keys are
// reachable.
func (d *Device) Ping() error { return d.tpm.Ping() }

// tenantPattern keeps tenants fit for certificates and MQTT topics.
var tenantPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// CSR returns a certificate signing request in PEM for the TLS key, signed by
// it: common name is the device id, organisational unit the tenant (1 to 63 of a-z, 0-9
// and "-").
func (d *Device) CSR(tenant string) ([]byte, error) {
	if !tenantPattern.MatchString(tenant) {
		return nil, fmt.Errorf("cannot request a certificate for tenant %q: use 1 to 63 of a-z, 0-9 and -", tenant)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:            pkix.Name{CommonName: d.id, OrganizationalUnit: []string{tenant}},
		SignatureAlgorithm: x509.ECDSAWithSHA256,
	}, d.signer)
	if err != nil {
		return nil, fmt.Errorf("cannot request a certificate: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// release closes all but the TPM.
func (d *Device) release() error {
	var errs []error
	if d.signer != nil {
		errs = append(errs, d.signer.Close())
	}
	return errors.Join(append(errs, d.ring.Close())...)
}

// Close zeroes all keys and closes the TPM. Closing twice is harmless.
func (d *Device) Close() error {
	return errors.Join(d.release(), d.tpm.Close())
}
