package tpm

import (
	"encoding/binary"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Bits of TPMA_SESSION (TPM 2.0 part 2, section 8.4).
const (
	sessionDecrypt = 1 << 5 // the first command parameter is encrypted
	sessionEncrypt = 1 << 6 // the first response parameter is encrypted
)

// guarded says which commands carry a secret in their first parameter, and the
// session attribute that must protect it.
func guarded(cc tpm2.TPMCC) (attribute byte, secret bool) {
	switch cc {
	case tpm2.TPMCCCreate:
		return sessionDecrypt, true
	case tpm2.TPMCCUnseal, tpm2.TPMCCGetRandom:
		return sessionEncrypt, true
	}
	return 0, false
}

// handlesOf is the number of handles in front of the authorisation area of the
// guarded commands.
func handlesOf(cc tpm2.TPMCC) int {
	if cc == tpm2.TPMCCGetRandom {
		return 0
	}
	return 1
}

// guard refuses commands that would show a secret: those without a session that
// encrypts it, and sessions that are not salted or have no AES.
func guard(command []byte) error {
	if len(command) < headerBytes {
		return fmt.Errorf("cannot send a command of %d bytes", len(command))
	}
	cc := tpm2.TPMCC(binary.BigEndian.Uint32(command[6:]))
	if cc == tpm2.TPMCCStartAuthSession {
		return guardSession(command)
	}
	attribute, secret := guarded(cc)
	if !secret {
		return nil
	}
	if binary.BigEndian.Uint16(command) == uint16(tpm2.TPMSTSessions) &&
		anySession(command[headerBytes+4*min(handlesOf(cc), (len(command)-headerBytes)/4):], attribute) {
		return nil
	}
	return fmt.Errorf("command %#x: %w", uint32(cc), ErrUnprotected)
}

// guardSession checks that StartAuthSession names a salt key and, at its end,
// AES-128-CFB and SHA-256.
func guardSession(command []byte) error {
	want := tpm2.Marshal(aes128CFB())
	want = binary.BigEndian.AppendUint16(want, uint16(tpm2.TPMAlgSHA256))
	at := len(command) - len(want)
	if at < headerBytes+8 || string(command[at:]) != string(want) ||
		binary.BigEndian.Uint32(command[headerBytes:]) == uint32(tpm2.TPMRHNull) {
		return fmt.Errorf("session without salt or AES: %w", ErrUnprotected)
	}
	return nil
}

// anySession walks an authorisation area (TPM 2.0 part 1, section 18.9) and
// says whether a real session in it has the attribute.
func anySession(area []byte, attribute byte) bool {
	if len(area) < 4 {
		return false
	}
	size := binary.BigEndian.Uint32(area)
	area = area[4:]
	if uint64(size) > uint64(len(area)) {
		return false
	}
	area = area[:size]
	for len(area) >= 4 {
		handle := binary.BigEndian.Uint32(area)
		_, rest, ok := cut2B(area[4:])
		if !ok || len(rest) < 1 {
			return false
		}
		attributes := rest[0]
		if _, area, ok = cut2B(rest[1:]); !ok {
			return false
		}
		if tpm2.TPMHandle(handle) != tpm2.TPMRSPW && attributes&attribute != 0 {
			return true
		}
	}
	return false
}

// cut2B takes a TPM2B, a field with a 16-bit length in front, off b.
func cut2B(b []byte) (field, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if n > len(b)-2 {
		return nil, nil, false
	}
	return b[2 : 2+n], b[2+n:], true
}
