package fleet

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"github.com/go-jose/go-jose/v4"
)

// commandType is the "typ" of the JWS header: it keeps signatures of this key for other purposes from being commands.
const commandType = "vigil-command"

// KeyID is the key id of a fleet command key: the first 16 hex digits of the SHA-256 of the public key.
func KeyID(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(pub)
	return hex.EncodeToString(sum[:8])
}

// Authority signs commands on the management side. It owns a copy of the private key until Close. It prints as its key id.
type Authority struct {
	mu  sync.Mutex
	key ed25519.PrivateKey // nil after Close
	pub ed25519.PublicKey
}

// NewAuthority copies key, an Ed25519 private key of 64 bytes.
func NewAuthority(key ed25519.PrivateKey) (*Authority, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("cannot use the fleet key: it has %d bytes, wanted an Ed25519 private key of %d", len(key), ed25519.PrivateKeySize)
	}
	own := append(ed25519.PrivateKey(nil), key...)
	return &Authority{key: own, pub: own.Public().(ed25519.PublicKey)}, nil
}

// Public returns the key that devices need in Config.CommandKeys.
func (a *Authority) Public() ed25519.PublicKey { return append(ed25519.PublicKey(nil), a.pub...) }

// String returns the key id.
func (a *Authority) String() string { return "fleet key " + KeyID(a.pub) }

// GoString returns the key id, so that %#v does not print the key.
func (a *Authority) GoString() string { return a.String() }

// Close erases the private key. Sign fails afterwards.
func (a *Authority) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.key)
	a.key = nil
}

// Sign returns c as a compact JWS (EdDSA). It refuses commands that every device would refuse as malformed: a bad id or
// name, args of the wrong shape, a lifetime beyond MaxCommandLifetime. Times are cut to whole seconds.
func (a *Authority) Sign(c Command) (string, error) {
	payload, err := c.encode()
	if err != nil {
		return "", fmt.Errorf("cannot sign command %q: its args are not JSON", c.ID)
	}
	if err := signable(c, payload); err != nil {
		return "", fmt.Errorf("cannot sign command %q: %v", c.ID, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.key == nil {
		return "", errors.New("cannot sign a command: the fleet key is closed")
	}
	return signJWS(a.key, KeyID(a.pub), payload)
}

func signable(c Command, payload []byte) error {
	parsed, err := parseClaims(payload)
	if err != nil {
		return err
	}
	if parsed.Expires.Sub(parsed.IssuedAt) > MaxCommandLifetime {
		return fmt.Errorf("it lives longer than %v", MaxCommandLifetime)
	}
	if _, err := NewTopics(c.Tenant, c.Device); err != nil {
		return err
	}
	if known, err := checkArgs(c.Name, c.Args); !known || err != nil {
		return fmt.Errorf("command name or args are wrong: known are %q and %q", CommandStatus, CommandSubjectDelete)
	}
	return nil
}

func signJWS(key ed25519.PrivateKey, kid string, payload []byte) (string, error) {
	opts := (&jose.SignerOptions{}).WithType(commandType)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, opts)
	if err != nil {
		return "", errors.New("cannot sign a command: the fleet key is not usable")
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", errors.New("cannot sign a command: signing failed")
	}
	out, err := jws.CompactSerialize()
	if err != nil {
		return "", errors.New("cannot sign a command: it does not serialise")
	}
	if len(out) > MaxCommandBytes {
		return "", fmt.Errorf("cannot sign a command: it has %d bytes, devices take %d", len(out), MaxCommandBytes)
	}
	return out, nil
}
