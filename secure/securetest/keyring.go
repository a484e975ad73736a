package securetest

import (
	"crypto/rand"

	"vigil/secure"
	"vigil/secure/mem"
)

// NewKeyring makes a keyring with random keys for every purpose, without a TPM,
// for tests of what is above it. Nothing can open its data after Close.
func NewKeyring() (*secure.Keyring, error) {
	root, err := mem.New(secure.RootBytes)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	rand.Read(root.Bytes())
	const device = "0123456789abcdef"
	wrapped, err := secure.GenerateKEKs(root, device, secure.Purposes()...)
	if err != nil {
		return nil, err
	}
	return secure.NewKeyring(root, device, wrapped)
}
