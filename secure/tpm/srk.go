package tpm

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// srkHandle is where the TCG TPM v2.0 Provisioning Guidance (section 7.5.1)
// puts the storage root key.
const srkHandle = tpm2.TPMHandle(0x81000001)

// SRK pins a storage root key: what its TPM must prove to hold.
type SRK struct {
	Public []byte `json:"public"` // TPMT_PUBLIC
	Name   []byte `json:"name"`   // hash algorithm and digest of Public
}

// srk is the key in use.
type srk struct {
	public    tpm2.TPMTPublic
	name      tpm2.TPM2BName
	handle    tpm2.TPMHandle
	transient bool // flushed by Close
}

// CreateSRK derives the storage root key, makes it persistent where that is
// possible, uses it from now on, and returns the pin to keep. It trusts the TPM
// that answers. Doing it again gives the same key, until the TPM is cleared.
func (t *TPM) CreateSRK() (SRK, error) {
	var pin SRK
	err := t.do("create the storage root key", func(x transport.TPM) error {
		key, err := createPrimary(x)
		if err != nil {
			return err
		}
		pin = SRK{Public: tpm2.Marshal(key.public), Name: key.name.Buffer}
		t.setSRK(x, persist(x, key))
		return nil
	})
	return pin, err
}

// UseSRK uses the pinned storage root key from now on. It fails with
// ErrTPMCleared when the TPM has another one, and with ErrBlob when the pin is
// malformed.
func (t *TPM) UseSRK(pin SRK) error {
	want, err := parsePin(pin)
	if err != nil {
		return err
	}
	return t.do("use the storage root key", func(x transport.TPM) error {
		if name, err := readName(x, srkHandle); err == nil && bytes.Equal(name, want.name.Buffer) {
			want.handle = srkHandle
			t.setSRK(x, want)
			return nil
		} else if errors.Is(err, ErrGone) {
			return err
		}
		key, err := createPrimary(x)
		if err != nil {
			return err
		}
		if !bytes.Equal(key.name.Buffer, want.name.Buffer) {
			_ = flush(x, key.handle)
			return fmt.Errorf("%w: its storage root key is not the one this device was provisioned with; the stored keys cannot be opened: put the old TPM back, or erase the state folder and provision again", ErrTPMCleared)
		}
		// The public area that counts is the pinned one.
		want.handle, want.transient = key.handle, true
		t.setSRK(x, want)
		return nil
	})
}

// setSRK replaces the key in use.
func (t *TPM) setSRK(x transport.TPM, key *srk) {
	if t.srk != nil && t.srk.transient {
		_ = flush(x, t.srk.handle)
	}
	t.srk = key
}

// createPrimary derives the key of the TCG template from the owner seed.
func createPrimary(x transport.TPM) (*srk, error) {
	rsp, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.TPMRHOwner,
		InPublic:      tpm2.New2B(tpm2.ECCSRKTemplate),
	}.Execute(x)
	if errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail) {
		return nil, fmt.Errorf("the owner hierarchy has a password (%v): remove it with tpm2_changeauth -c owner, or restore the key at handle %#x", err, uint32(srkHandle))
	}
	if err != nil {
		return nil, err
	}
	key, err := parsePublic(rsp.OutPublic.Bytes())
	if err != nil {
		_ = flush(x, rsp.ObjectHandle)
		return nil, err
	}
	key.handle, key.transient = rsp.ObjectHandle, true
	return key, nil
}

// persist moves a fresh primary to its persistent handle. When that handle is
// taken by another key, or the TPM refuses, the key stays transient.
func persist(x transport.TPM, key *srk) *srk {
	name, err := readName(x, srkHandle)
	if err != nil {
		_, err = tpm2.EvictControl{
			Auth:             tpm2.TPMRHOwner,
			ObjectHandle:     &tpm2.NamedHandle{Handle: key.handle, Name: key.name},
			PersistentHandle: srkHandle,
		}.Execute(x)
		name = key.name.Buffer
	}
	if err != nil || !bytes.Equal(name, key.name.Buffer) {
		return key
	}
	_ = flush(x, key.handle)
	return &srk{public: key.public, name: key.name, handle: srkHandle}
}

// readName computes the name of the object at handle from its public area.
func readName(x transport.TPM, handle tpm2.TPMHandle) ([]byte, error) {
	rsp, err := tpm2.ReadPublic{ObjectHandle: handle}.Execute(x)
	if err != nil {
		return nil, err
	}
	key, err := parsePublic(rsp.OutPublic.Bytes())
	if err != nil {
		return nil, err
	}
	return key.name.Buffer, nil
}

// parsePin checks a pin against itself and the template.
func parsePin(pin SRK) (*srk, error) {
	key, err := parsePublic(pin.Public)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(key.name.Buffer, pin.Name) {
		return nil, fmt.Errorf("cannot use pinned storage root key: its name does not match its public area: %w", ErrBlob)
	}
	return key, nil
}

// parsePublic reads a TPMT_PUBLIC and accepts it only when it is the TCG
// template with a point of its own: a restricted decryption key that never
// leaves its TPM.
func parsePublic(raw []byte) (*srk, error) {
	public, err := unmarshalPublic(raw)
	if err != nil {
		return nil, err
	}
	point, err := public.Unique.ECC()
	if err != nil {
		return nil, fmt.Errorf("cannot use storage root key: not an ECC key: %w", ErrBlob)
	}
	like := tpm2.ECCSRKTemplate
	like.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, point)
	if !bytes.Equal(tpm2.Marshal(like), raw) {
		return nil, fmt.Errorf("cannot use storage root key: not of the TCG template: %w", ErrBlob)
	}
	parameters, err := public.Parameters.ECCDetail()
	if err != nil {
		return nil, fmt.Errorf("cannot use storage root key: %v: %w", err, ErrBlob)
	}
	if _, err := tpm2.ECDHPub(parameters, point); err != nil {
		return nil, fmt.Errorf("cannot use storage root key: %v: %w", err, ErrBlob)
	}
	name, err := tpm2.ObjectName(public)
	if err != nil {
		return nil, fmt.Errorf("cannot name storage root key: %v: %w", err, ErrBlob)
	}
	return &srk{public: *public, name: *name}, nil
}

// maxPublicBytes bounds a stored public area; those made here have about 100.
const maxPublicBytes = 1024

// unmarshalPublic reads a TPMT_PUBLIC whose re-encoding is the same.
func unmarshalPublic(raw []byte) (public *tpm2.TPMTPublic, err error) {
	if len(raw) == 0 || len(raw) > maxPublicBytes {
		return nil, fmt.Errorf("cannot read public area of %d bytes: %w", len(raw), ErrBlob)
	}
	// go-tpm's Marshal panics where it could return an error.
	defer func() {
		if p := recover(); p != nil {
			public, err = nil, fmt.Errorf("cannot read public area: %v: %w", p, ErrBlob)
		}
	}()
	public, err = tpm2.Unmarshal[tpm2.TPMTPublic](raw)
	if err != nil {
		return nil, fmt.Errorf("cannot read public area: %v: %w", err, ErrBlob)
	}
	if !bytes.Equal(tpm2.Marshal(*public), raw) {
		return nil, fmt.Errorf("cannot read public area: bytes left over: %w", ErrBlob)
	}
	return public, nil
}
