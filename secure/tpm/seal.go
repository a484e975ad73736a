package tpm

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"vigil/secure/mem"
)

// maxSealedBytes is the smallest MAX_SYM_DATA a TPM may have (TPM 2.0 part 2).
const maxSealedBytes = 128

// maxPCR is the highest register that every PC client TPM has.
const maxPCR = 23

// Sealed is a secret that opens only on its TPM, and only while the PCRs have
// the values they had when it was sealed.
type Sealed struct {
	Blob
	PCRs []uint `json:"pcrs"` // ascending, SHA-256 bank
}

// CheckPCRs says whether pcrs can be sealed to: one or more of 0..23, ascending.
func CheckPCRs(pcrs []uint) error {
	if len(pcrs) == 0 {
		return errors.New("cannot seal to no PCR: name at least one of 0 to 23")
	}
	for i, p := range pcrs {
		if p > maxPCR {
			return fmt.Errorf("cannot use PCR %d: the highest is %d", p, maxPCR)
		}
		if i > 0 && p <= pcrs[i-1] {
			return fmt.Errorf("cannot use PCRs %v: they must be ascending", pcrs)
		}
	}
	return nil
}

// Seal seals secret (1 to 128 bytes, stays the caller's) to the present values
// of pcrs. The object opens by its policy only, never by a password, and does
// not count for the TPM's dictionary attack protection.
func (t *TPM) Seal(secret *mem.Buffer, pcrs []uint) (Sealed, error) {
	if n := secret.Len(); n == 0 || n > maxSealedBytes {
		return Sealed{}, fmt.Errorf("cannot seal a secret of %d bytes: 1 to %d are possible", n, maxSealedBytes)
	}
	if err := CheckPCRs(pcrs); err != nil {
		return Sealed{}, err
	}
	out := Sealed{PCRs: slices.Clone(pcrs)}
	err := t.with("seal the secret", func(x transport.TPM, key *srk) error {
		policy, err := pcrPolicy(x, key, pcrs)
		if err != nil {
			return err
		}
		out.Blob, err = create(x, key, tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: secret.Bytes()}),
		}, sealedTemplate(policy))
		return err
	})
	return out, err
}

func sealedTemplate(policy []byte) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgKeyedHash,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, AdminWithPolicy: true, NoDA: true,
		},
		AuthPolicy: tpm2.TPM2BDigest{Buffer: policy},
	}
}

// Unseal opens a sealed secret into locked memory, which the caller closes.
// Errors: ErrPCRMismatch, ErrBlob, ErrLocked, ErrGone.
func (t *TPM) Unseal(sealed Sealed) (*mem.Buffer, error) {
	if err := CheckPCRs(sealed.PCRs); err != nil {
		return nil, fmt.Errorf("%v: %w", err, ErrBlob)
	}
	var secret *mem.Buffer
	err := t.with("open the sealed secret", func(x transport.TPM, key *srk) error {
		object, err := load(x, key, sealed.Blob)
		if err != nil {
			return err
		}
		defer func() { _ = flush(x, object.handle) }() // a handle that stays is flushed by the next Open
		// Any PCR that moves between policy check and use voids the session,
		// also one that is not selected.
		for try := 0; ; try++ {
			secret, err = unsealOnce(x, key, object, sealed.PCRs)
			if !errors.Is(err, tpm2.TPMRCPCRChanged) || try == 3 {
				return err
			}
		}
	})
	return secret, err
}

func unsealOnce(x transport.TPM, key *srk, object loaded, pcrs []uint) (*mem.Buffer, error) {
	session, closeSession, err := tpm2.PolicySession(x, tpm2.TPMAlgSHA256, nonceBytes,
		key.salted(tpm2.AESEncryption(128, tpm2.EncryptOut))...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = closeSession() }()
	if _, err := (tpm2.PolicyPCR{PolicySession: session.Handle(), Pcrs: selection(pcrs)}).Execute(x); err != nil {
		return nil, err
	}
	rsp, err := tpm2.Unseal{
		ItemHandle: tpm2.AuthHandle{Handle: object.handle, Name: object.name, Auth: session},
	}.Execute(x)
	if err != nil {
		return nil, err
	}
	return mem.FromBytes(rsp.OutData.Buffer)
}

// pcrPolicy computes the digest of TPM2_PolicyPCR for the present values.
func pcrPolicy(x transport.TPM, key *srk, pcrs []uint) ([]byte, error) {
	values, err := readPCRs(x, key, pcrs)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(slices.Concat(values...))
	policy, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err != nil {
		return nil, err
	}
	command := tpm2.PolicyPCR{Pcrs: selection(pcrs), PcrDigest: tpm2.TPM2BDigest{Buffer: digest[:]}}
	if err := command.Update(policy); err != nil {
		return nil, err
	}
	return policy.Hash().Digest, nil
}

// ReadPCRs returns the present values, 32 bytes each, of the SHA-256 bank.
func (t *TPM) ReadPCRs(pcrs []uint) (values [][]byte, err error) {
	if err := CheckPCRs(pcrs); err != nil {
		return nil, err
	}
	err = t.with("read the PCRs", func(x transport.TPM, key *srk) error {
		values, err = readPCRs(x, key, pcrs)
		return err
	})
	return values, err
}

// readPCRs reads one register at a time (a TPM answers with at most eight), in
// sessions that authenticate the values. It fails when one moves meanwhile.
func readPCRs(x transport.TPM, key *srk, pcrs []uint) ([][]byte, error) {
	var values [][]byte
	var counter uint32
	for i, p := range pcrs {
		session := tpm2.HMAC(tpm2.TPMAlgSHA256, nonceBytes, key.salted(tpm2.Audit(), aesOnly())...)
		rsp, err := tpm2.PCRRead{PCRSelectionIn: selection([]uint{p})}.Execute(x, session)
		if err != nil {
			return nil, err
		}
		if len(rsp.PCRValues.Digests) != 1 || len(rsp.PCRValues.Digests[0].Buffer) != sha256.Size {
			return nil, fmt.Errorf("PCR %d has no SHA-256 value: enable that bank with tpm2_pcrallocate", p)
		}
		if i > 0 && rsp.PCRUpdateCounter != counter {
			return nil, errors.New("PCRs changed while they were read: try again")
		}
		counter = rsp.PCRUpdateCounter
		values = append(values, rsp.PCRValues.Digests[0].Buffer)
	}
	return values, nil
}

// aesOnly gives a session AES without switching parameter encryption on: the
// first parameter of PCRRead's answer cannot be encrypted.
func aesOnly() tpm2.AuthOption { return tpm2.AESEncryption(128, 0) }

func selection(pcrs []uint) tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
		Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(pcrs...),
	}}}
}
