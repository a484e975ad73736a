package tpm

import (
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Sessions use SHA-256 and nonces of 16 bytes, the size of the AES key.
const nonceBytes = 16

// aes128CFB is the parameter encryption of every session.
func aes128CFB() tpm2.TPMTSymDef {
	return tpm2.TPMTSymDef{
		Algorithm: tpm2.TPMAlgAES,
		KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(128)),
		Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
	}
}

// salted returns the options of a session salted to the SRK in use.
func (k *srk) salted(more ...tpm2.AuthOption) []tpm2.AuthOption {
	return append([]tpm2.AuthOption{tpm2.Salted(k.handle, k.public)}, more...)
}

// encryptIn is a session for one command that carries a secret to the TPM. auth
// is the authorisation value of the entity it authorises, which must have no
// zero bytes (go-tpm cuts the value at the first one).
func (k *srk) encryptIn(auth []byte) tpm2.Session {
	return tpm2.HMAC(tpm2.TPMAlgSHA256, nonceBytes,
		k.salted(tpm2.Auth(auth), tpm2.AESEncryption(128, tpm2.EncryptIn))...)
}

// encryptOut is a session for one command whose answer is a secret.
func (k *srk) encryptOut(auth []byte, more ...tpm2.AuthOption) tpm2.Session {
	more = append(more, tpm2.Auth(auth), tpm2.AESEncryption(128, tpm2.EncryptOut))
	return tpm2.HMAC(tpm2.TPMAlgSHA256, nonceBytes, k.salted(more...)...)
}

// parent authorises use of the SRK as a parent; its authorisation is empty.
func (k *srk) parent() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: k.handle, Name: k.name, Auth: k.encryptIn(nil)}
}

// with runs an operation that needs the SRK.
func (t *TPM) with(what string, operation func(x transport.TPM, key *srk) error) error {
	return t.do(what, func(x transport.TPM) error {
		if t.srk == nil {
			return ErrNoSRK
		}
		return operation(x, t.srk)
	})
}

// Random fills b with the TPM's random bytes, which cross encrypted.
func (t *TPM) Random(b []byte) error {
	return t.with("read random bytes", func(x transport.TPM, key *srk) error {
		for len(b) > 0 {
			rsp, err := tpm2.GetRandom{BytesRequested: uint16(min(len(b), 32))}.Execute(x, key.encryptOut(nil))
			if err != nil {
				return err
			}
			if len(rsp.RandomBytes.Buffer) == 0 {
				return errShortRandom
			}
			n := copy(b, rsp.RandomBytes.Buffer)
			clear(rsp.RandomBytes.Buffer)
			b = b[n:]
		}
		return nil
	})
}
