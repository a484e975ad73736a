package secure

import "errors"

// Sentinels that callers match with errors.Is. Each is documented again on the
// functions that return it.
var (
	// ErrTampered: a ciphertext does not authenticate. It was altered, moved to
	// another place, or made under another key.
	ErrTampered = errors.New("ciphertext does not authenticate")
	// ErrFormat: the bytes are not what this version writes (too short, unknown
	// format, impossible lengths).
	ErrFormat = errors.New("unknown or damaged format")
	// ErrKeyVersion: the ciphertext names a key version that is not held here.
	ErrKeyVersion = errors.New("key version not held")
	// ErrClosed: the key, keyring or device was closed before.
	ErrClosed = errors.New("already closed")
	// ErrProvisioned: Provision was asked to overwrite an existing identity.
	ErrProvisioned = errors.New("device is already provisioned")
	// ErrNotProvisioned: Open found no identity in the state folder.
	ErrNotProvisioned = errors.New("device is not provisioned")
	// ErrDamaged: an identity file is missing, truncated or altered.
	ErrDamaged = errors.New("identity file is damaged")
)
