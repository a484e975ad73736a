package tpm

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/google/go-tpm/tpm2"
)

// Sentinels that callers match with errors.Is.
var (
	// ErrNoTPM is returned by Open when there is no TPM at the address.
	ErrNoTPM = errors.New("no TPM")
	// ErrGone is returned by every operation after the connection failed or a
	// command ran out of time. Close the TPM and open it again.
	ErrGone = errors.New("TPM connection lost")
	// ErrTPMCleared is returned by UseSRK when the TPM derives another storage
	// root key than the pinned one.
	ErrTPMCleared = errors.New("TPM was cleared or replaced")
	// ErrPCRMismatch is returned by Unseal when the measured boot state is not
	// the one the secret was sealed to.
	ErrPCRMismatch = errors.New("measured boot state changed")
	// ErrLocked is returned by any operation while the TPM's dictionary attack
	// protection refuses it.
	ErrLocked = errors.New("TPM is locked out")
	// ErrBlob is returned when a stored blob is malformed, was altered, or does
	// not belong to this TPM's storage root key.
	ErrBlob = errors.New("blob is not of this TPM")
	// ErrUnprotected is returned when a command that carries a secret would
	// have been sent without parameter encryption. It is a programming error,
	// or the TPM cannot encrypt.
	ErrUnprotected = errors.New("secret would cross unencrypted")
	// ErrNoSRK is returned by operations that come before CreateSRK or UseSRK.
	ErrNoSRK = errors.New("no storage root key in use")
)

// explain adds what an operator can do to the TPM's answers that have a remedy.
func explain(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, tpm2.TPMRCLockout):
		return fmt.Errorf("cannot %s: %w: wait for the TPM's recovery time, or reset it with: tpm2_dictionarylockout --clear-lockout", what, ErrLocked)
	case errors.Is(err, ErrGone):
		return fmt.Errorf("cannot %s: %w", what, err)
	case errors.Is(err, tpm2.TPMRCPolicyFail):
		return fmt.Errorf("cannot %s: %w: start the software it was provisioned with, or provision again", what, ErrPCRMismatch)
	case errors.Is(err, ErrBlob):
		return fmt.Errorf("cannot %s: %w: restore the state folder from the backup of this device", what, err)
	default:
		return fmt.Errorf("cannot %s: %w", what, err)
	}
}

// noTPM builds the answer for a missing TPM, with a line to copy.
func noTPM(where string, err error) error {
	return fmt.Errorf("cannot open TPM at %s: %w (%v)\n%s", where, ErrNoTPM, err, startHelp(where))
}

// startHelp says how to start the software TPM at the address that was asked
// for, or beside the caller when a device was.
func startHelp(where string) string {
	path, isSocket := strings.CutPrefix(where, "unix:")
	if !isSocket {
		path = filepath.Join("swtpm", "data.sock")
	}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	dir := filepath.Dir(path)
	help := fmt.Sprintf(`without a hardware TPM, start the software TPM (package swtpm), for development only:
  mkdir -p %[1]s && swtpm socket --tpm2 --tpmstate dir=%[1]s --ctrl type=unixio,path=%[3]s --server type=unixio,path=%[2]s --flags not-need-init,startup-clear &`,
		shellWord(dir), shellWord(path), shellWord(filepath.Join(dir, "ctrl.sock")))
	if !isSocket {
		help += fmt.Sprintf("\nand use the address unix:%s", path)
	}
	return help
}

// shellWord quotes a path that a shell would not take as one word.
func shellWord(path string) string {
	if strings.IndexFunc(path, func(r rune) bool {
		return !strings.ContainsRune("/._-+@%", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
