package tpm

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

var errShortRandom = errors.New("the TPM gave no random bytes")

// Blob is an object that only the TPM whose SRK made it can load.
type Blob struct {
	Public  []byte `json:"public"`  // TPMT_PUBLIC
	Private []byte `json:"private"` // encrypted by the TPM
}

// create makes an object under the SRK; sensitive crosses encrypted.
func create(x transport.TPM, key *srk, sensitive tpm2.TPMSSensitiveCreate, template tpm2.TPMTPublic) (Blob, error) {
	rsp, err := tpm2.Create{
		ParentHandle: key.parent(),
		InSensitive:  tpm2.TPM2BSensitiveCreate{Sensitive: &sensitive},
		InPublic:     tpm2.New2B(template),
	}.Execute(x)
	if err != nil {
		return Blob{}, err
	}
	return Blob{Public: rsp.OutPublic.Bytes(), Private: rsp.OutPrivate.Buffer}, nil
}

// loaded is an object in the TPM; its name was computed from the stored public
// area, not taken from the TPM.
type loaded struct {
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	public *tpm2.TPMTPublic
}

// maxPrivateBytes bounds a stored private area; those made here have about 200.
const maxPrivateBytes = 2048

// load brings a blob into the TPM. The caller flushes it.
func load(x transport.TPM, key *srk, blob Blob) (loaded, error) {
	public, err := unmarshalPublic(blob.Public)
	if err != nil {
		return loaded{}, err
	}
	if len(blob.Private) == 0 || len(blob.Private) > maxPrivateBytes {
		return loaded{}, fmt.Errorf("private area has %d bytes: %w", len(blob.Private), ErrBlob)
	}
	name, err := tpm2.ObjectName(public)
	if err != nil {
		return loaded{}, fmt.Errorf("%v: %w", err, ErrBlob)
	}
	rsp, err := tpm2.Load{
		ParentHandle: key.parent(),
		InPrivate:    tpm2.TPM2BPrivate{Buffer: blob.Private},
		InPublic:     tpm2.New2B(*public),
	}.Execute(x)
	if err != nil {
		return loaded{}, loadError(err)
	}
	if !bytes.Equal(rsp.Name.Buffer, name.Buffer) {
		_ = flush(x, rsp.ObjectHandle) // the load has failed anyway
		return loaded{}, fmt.Errorf("the TPM loaded another object: %w", ErrBlob)
	}
	return loaded{handle: rsp.ObjectHandle, name: *name, public: public}, nil
}

// loadError tells a blob that the TPM rejects from other failures: any complaint
// about a parameter of Load is about the blob.
func loadError(err error) error {
	var fmt1 tpm2.TPMFmt1Error
	if errors.As(err, &fmt1) {
		if is, _ := fmt1.Parameter(); is {
			return fmt.Errorf("%w (%v)", ErrBlob, err)
		}
	}
	return err
}
