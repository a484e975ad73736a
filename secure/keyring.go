package secure

import (
	"cmp"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"

	"vigil/secure/mem"
)

// Purpose says what a key encryption key is for. A DEK wrapped for one purpose
// does not open for another.
type Purpose string

// The purposes every device is provisioned with.
const (
	Templates Purpose = "templates" // biometric templates and subject records
	Models    Purpose = "models"    // model weights at rest
	Audit     Purpose = "audit"     // segments of the audit log
	Outbox    Purpose = "outbox"    // events that wait for the broker
)

// Purposes returns all of them, in a fixed order.
func Purposes() []Purpose { return []Purpose{Templates, Models, Audit, Outbox} }

// RootBytes is the size of the root secret.
const RootBytes = 32

// dekBytes is the plaintext of a wrapped DEK: its version (uint32, big-endian)
// and the key.
const dekBytes = 4 + keyBytes

// WrappedKEK is a key encryption key as it is stored: an envelope under a key
// derived from the root secret, bound to purpose, version and device.
type WrappedKEK struct {
	Purpose Purpose `json:"purpose"`
	Version uint32  `json:"version"`
	Wrapped []byte  `json:"wrapped"`
}

// Keyring holds the opened KEKs of one device. The newest version of a purpose
// wraps, every version held unwraps. Safe for concurrent use.
type Keyring struct {
	mu     sync.RWMutex
	keks   map[Purpose][]*Key // ascending versions; nil once closed
	device string
}

// GenerateKEKs makes one random KEK, version 1, for each purpose and returns
// them wrapped under root for the device. root must hold RootBytes bytes and
// stays the caller's.
func GenerateKEKs(root *mem.Buffer, device string, purposes ...Purpose) ([]WrappedKEK, error) {
	wrapper, err := deriveWrapper(root, device)
	if err != nil {
		return nil, err
	}
	defer wrapper.Close()
	out := make([]WrappedKEK, 0, len(purposes))
	for _, p := range purposes {
		w, err := generateKEK(wrapper, p, 1, device)
		if err != nil {
			return nil, fmt.Errorf("cannot make the key of purpose %q: %w", p, err)
		}
		out = append(out, w)
	}
	return out, nil
}

func generateKEK(wrapper *Key, p Purpose, version uint32, device string) (WrappedKEK, error) {
	raw, err := mem.New(keyBytes)
	if err != nil {
		return WrappedKEK{}, err
	}
	defer raw.Close()
	rand.Read(raw.Bytes())
	sealed, err := wrapper.seal(raw.Bytes(), domainKEK, kekAAD(p, version, device))
	return WrappedKEK{Purpose: p, Version: version, Wrapped: sealed}, err
}

// NewKeyring opens the wrapped KEKs of the device with root, which must hold
// RootBytes bytes and stays the caller's. Errors: ErrTampered when a KEK is not
// of this root, purpose, version and device; ErrFormat when one is malformed or
// there twice.
func NewKeyring(root *mem.Buffer, device string, wrapped []WrappedKEK) (*Keyring, error) {
	wrapper, err := deriveWrapper(root, device)
	if err != nil {
		return nil, err
	}
	defer wrapper.Close()
	r := &Keyring{keks: make(map[Purpose][]*Key), device: device}
	for _, w := range wrapped {
		if err := r.add(wrapper, w); err != nil {
			r.Close()
			return nil, fmt.Errorf("cannot open version %d of the key of purpose %q: %w", w.Version, w.Purpose, err)
		}
	}
	return r, nil
}

// add opens w into the ring.
func (r *Keyring) add(wrapper *Key, w WrappedKEK) error {
	if w.Version == 0 || w.Purpose == "" || len(w.Wrapped) != EnvelopeOverhead+keyBytes {
		return ErrFormat
	}
	keys := r.keks[w.Purpose]
	at, found := findVersion(keys, w.Version)
	if found {
		return fmt.Errorf("it is there twice: %w", ErrFormat)
	}
	raw, err := mem.New(keyBytes)
	if err != nil {
		return err
	}
	if _, err := wrapper.open(raw.Bytes(), w.Wrapped, domainKEK, kekAAD(w.Purpose, w.Version, r.device)); err != nil {
		raw.Close()
		return err
	}
	r.keks[w.Purpose] = slices.Insert(keys, at, &Key{raw: raw, version: w.Version})
	return nil
}

func findVersion(keys []*Key, version uint32) (int, bool) {
	return slices.BinarySearchFunc(keys, version, func(k *Key, v uint32) int {
		return cmp.Compare(k.version, v)
	})
}

// kekAAD binds a KEK to purpose, version and device.
func kekAAD(p Purpose, version uint32, device string) AAD {
	v := binary.BigEndian.AppendUint32(nil, version)
	return AAD{Bucket: string(p), Key: string(v) + device, Schema: 1}
}

// deriveWrapper derives the key that wraps KEKs from the root secret by
// HKDF-SHA256 (RFC 5869) under a label of its own.
func deriveWrapper(root *mem.Buffer, device string) (*Key, error) {
	raw, err := derive(root, "vigil/1 kek wrapping key", device, keyBytes)
	if err != nil {
		return nil, err
	}
	return &Key{raw: raw, version: 1}, nil
}

// derive returns sizeBytes bytes of HKDF-SHA256 from root under label and
// context, in locked memory.
func derive(root *mem.Buffer, label, context string, sizeBytes int) (*mem.Buffer, error) {
	if root.Len() != RootBytes {
		return nil, fmt.Errorf("cannot use a root secret of %d bytes, it must have %d: %w", root.Len(), RootBytes, ErrFormat)
	}
	info := binary.BigEndian.AppendUint32(nil, uint32(len(label)))
	info = append(append(info, label...), context...)
	var out []byte
	var err error
	erasing(func() { out, err = hkdf.Key(sha256.New, root.Bytes(), nil, string(info), sizeBytes) })
	if err != nil {
		return nil, fmt.Errorf("cannot derive %q: %v", label, err)
	}
	return mem.FromBytes(out)
}

// NewDEK makes a random data encryption key for one record and returns it with
// its wrapped form, an envelope under the newest KEK of the purpose, bound to
// aad. The caller stores wrapped, and closes dek. Errors: ErrKeyVersion when the
// ring holds no key of the purpose, ErrClosed.
func (r *Keyring) NewDEK(p Purpose, aad AAD) (dek *Key, wrapped []byte, err error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	kek, err := r.kek(p, nil)
	if err != nil {
		return nil, nil, err
	}
	plain, err := mem.New(dekBytes)
	if err != nil {
		return nil, nil, err
	}
	binary.BigEndian.PutUint32(plain.Bytes(), 1)
	rand.Read(plain.Bytes()[4:])
	if wrapped, err = kek.seal(plain.Bytes(), domainDEK, aad.forPurpose(p)); err != nil {
		plain.Close()
		return nil, nil, err
	}
	return dekFrom(plain), wrapped, nil
}

// OpenDEK unwraps a key that NewDEK wrapped for the same purpose and aad. The
// caller closes it. Errors: ErrFormat, ErrTampered, ErrClosed, and ErrKeyVersion
// when the KEK it was wrapped with is not held.
func (r *Keyring) OpenDEK(p Purpose, wrapped []byte, aad AAD) (*Key, error) {
	version, err := wrappedVersion(wrapped)
	if err != nil {
		return nil, err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	kek, err := r.kek(p, &version)
	if err != nil {
		return nil, err
	}
	plain, err := mem.New(dekBytes)
	if err != nil {
		return nil, err
	}
	if _, err := kek.open(plain.Bytes(), wrapped, domainDEK, aad.forPurpose(p)); err != nil {
		plain.Close()
		return nil, err
	}
	return dekFrom(plain), nil
}

// forPurpose binds the AAD of a wrapped DEK to its purpose too, although each
// purpose has its own KEK.
func (a AAD) forPurpose(p Purpose) AAD {
	n := binary.BigEndian.AppendUint32(nil, uint32(len(p)))
	a.Bucket = string(n) + string(p) + a.Bucket
	return a
}

// wrappedVersion parses a wrapped DEK and says which KEK version it needs.
func wrappedVersion(wrapped []byte) (uint32, error) {
	if len(wrapped) != EnvelopeOverhead+dekBytes {
		return 0, fmt.Errorf("cannot read wrapped key of %d bytes, it must have %d: %w", len(wrapped), EnvelopeOverhead+dekBytes, ErrFormat)
	}
	e, err := parseEnvelope(wrapped)
	return e.keyVersion, err
}

// dekFrom makes a key of the plaintext of a wrapped DEK and takes ownership.
func dekFrom(plain *mem.Buffer) *Key {
	return &Key{raw: plain, version: binary.BigEndian.Uint32(plain.Bytes())}
}

// kek finds the key of a purpose: the newest, or the one of that version. The
// caller holds r.mu.
func (r *Keyring) kek(p Purpose, version *uint32) (*Key, error) {
	if r.keks == nil {
		return nil, fmt.Errorf("cannot use keyring: %w", ErrClosed)
	}
	keys := r.keks[p]
	if len(keys) == 0 {
		return nil, fmt.Errorf("cannot find a key of purpose %q: %w", p, ErrKeyVersion)
	}
	if version == nil {
		return keys[len(keys)-1], nil
	}
	at, found := findVersion(keys, *version)
	if !found {
		return nil, fmt.Errorf("cannot find version %d of the key of purpose %q: %w", *version, p, ErrKeyVersion)
	}
	return keys[at], nil
}

// Device is the id of the device that the ring's keys are bound to.
func (r *Keyring) Device() string { return r.device }

// Close zeroes all keys. DEKs that were handed out are their callers' to close.
func (r *Keyring) Close() error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, keys := range r.keks {
		for _, k := range keys {
			errs = append(errs, k.Close())
		}
	}
	r.keks = nil
	return errors.Join(errs...)
}

// Format implements fmt.Formatter: a keyring prints as "[secret]".
func (*Keyring) Format(s fmt.State, _ rune) { io.WriteString(s, mem.Redacted) }

// LogValue implements slog.LogValuer.
func (*Keyring) LogValue() slog.Value { return slog.StringValue(mem.Redacted) }
