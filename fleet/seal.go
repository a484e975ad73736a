package fleet

import (
	"crypto/ecdh"
	"crypto/hpke"
	"encoding/binary"
	"errors"
	"fmt"
)

// Suite: RFC 9180 DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, base mode.
const (
	sealLabel = "vigil/1 record"
	// sealOverheadBytes is the encapsulated X25519 key (32) and the GCM tag (16).
	sealOverheadBytes = 48
)

// ErrSealed is returned by OpenEvent when a body cannot be opened: it was changed, moved to another device, class or id,
// or sealed to another management key. Which one is not said.
var ErrSealed = errors.New("cannot open sealed body")

// Binding is what a sealed body is bound to. A ciphertext that is moved to another binding does not open.
type Binding struct {
	Tenant string
	Device string
	Origin string // identity of the outbox the id belongs to; may be empty
	Class  string
	ID     uint64
}

// info is the HPKE info string: each part with its length, so that no two bindings share one encoding.
func (b Binding) info() []byte {
	out := []byte(sealLabel)
	for _, s := range []string{b.Tenant, b.Device, b.Origin, b.Class} {
		out = binary.BigEndian.AppendUint16(out, uint16(len(s)))
		out = append(out, s...)
	}
	return binary.BigEndian.AppendUint64(out, b.ID)
}

// ManagementKEM is the key encapsulation of the management key: X25519. Its GenerateKey makes a management key pair.
func ManagementKEM() hpke.KEM { return hpke.DHKEM(ecdh.X25519()) }

// ParseManagementKey reads the 32 byte X25519 public key of the management side.
func ParseManagementKey(raw []byte) (hpke.PublicKey, error) {
	key, err := ManagementKEM().NewPublicKey(raw)
	if err != nil {
		return nil, fmt.Errorf("cannot use the management key: it has %d bytes, wanted 32 of an X25519 public key", len(raw))
	}
	return key, nil
}

// SealEvent encrypts body to the management key, bound to b. The result is the encapsulated key (32 bytes) followed by
// the ciphertext and its tag (len(body)+16 bytes). Sealing the same body twice gives different results.
func SealEvent(to hpke.PublicKey, b Binding, body []byte) ([]byte, error) {
	sealed, err := hpke.Seal(to, hpke.HKDFSHA256(), hpke.AES256GCM(), b.info(), body)
	if err != nil {
		return nil, fmt.Errorf("cannot seal record %d: check the management key", b.ID)
	}
	return sealed, nil
}

// OpenEvent is the management side's inverse of SealEvent. It returns ErrSealed for everything that does not open.
func OpenEvent(key hpke.PrivateKey, b Binding, sealed []byte) ([]byte, error) {
	body, err := hpke.Open(key, hpke.HKDFSHA256(), hpke.AES256GCM(), b.info(), sealed)
	if err != nil {
		return nil, ErrSealed
	}
	return body, nil
}
