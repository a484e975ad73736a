package secure

import (
	"fmt"
	"io"
	"log/slog"
	"sync"

	"vigil/secure/mem"
)

// Key is one AES-256-GCM key. Its bytes live in locked memory until Close. It
// prints, logs and marshals as "[secret]". Safe for concurrent use.
type Key struct {
	mu      sync.RWMutex // held for reading during a call, for writing by Close
	raw     *mem.Buffer  // the key is its last keyBytes bytes; nil once closed
	version uint32
}

// bytes returns the key itself; k.mu is held and k is open.
func (k *Key) bytes() []byte { return k.raw.Bytes()[k.raw.Len()-keyBytes:] }

// Version is the number that envelopes of this key carry.
func (k *Key) Version() uint32 { return k.version }

// Seal encrypts plaintext for the place that aad names and returns an envelope
// of len(plaintext)+EnvelopeOverhead bytes:
//
//	format byte 0xE1 | key version, uint32 | nonce, 12 bytes | ciphertext | tag, 16 bytes
//
// It fails with ErrClosed after Close. plaintext is not kept.
func (k *Key) Seal(plaintext []byte, aad AAD) ([]byte, error) {
	return k.seal(plaintext, domainData, aad)
}

func (k *Key) seal(plaintext []byte, domain string, aad AAD) ([]byte, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.raw == nil {
		return nil, fmt.Errorf("cannot seal: key %w", ErrClosed)
	}
	return sealEnvelope(k.bytes(), k.version, plaintext, domain, aad)
}

// Open decrypts an envelope that Seal made with the same key and aad. The
// plaintext is on the Go heap and belongs to the caller; for secrets use
// OpenInto. Errors: ErrFormat, ErrKeyVersion, ErrTampered, ErrClosed.
func (k *Key) Open(envelope []byte, aad AAD) ([]byte, error) {
	if len(envelope) < EnvelopeOverhead {
		_, err := parseEnvelope(envelope)
		return nil, err
	}
	dst := make([]byte, len(envelope)-EnvelopeOverhead)
	if _, err := k.open(dst, envelope, domainData, aad); err != nil {
		return nil, err
	}
	return dst, nil
}

// OpenInto decrypts an envelope into dst, such as the bytes of a mem.Buffer,
// and returns the plaintext's length in bytes. The plaintext is written nowhere
// else. dst must not overlap envelope. A dst that is too short gives
// io.ErrShortBuffer and is not touched; on any other failure it holds no
// plaintext. Other errors as for Open.
func (k *Key) OpenInto(dst, envelope []byte, aad AAD) (int, error) {
	return k.open(dst, envelope, domainData, aad)
}

func (k *Key) open(dst, raw []byte, domain string, aad AAD) (int, error) {
	e, err := parseEnvelope(raw)
	if err != nil {
		return 0, err
	}
	n := len(e.sealed) - tagBytes
	if len(dst) < n {
		return 0, fmt.Errorf("cannot open envelope of %d bytes into %d: %w", n, len(dst), io.ErrShortBuffer)
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	switch {
	case k.raw == nil:
		return 0, fmt.Errorf("cannot open envelope: key %w", ErrClosed)
	case e.keyVersion != k.version:
		return 0, fmt.Errorf("cannot open envelope of key version %d with version %d: %w", e.keyVersion, k.version, ErrKeyVersion)
	}
	return n, openEnvelope(dst[:n], k.bytes(), e, domain, aad)
}

// Close zeroes the key. It waits for calls in progress; closing twice is
// harmless.
func (k *Key) Close() error {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	raw := k.raw
	k.raw = nil
	return raw.Close()
}

// String implements fmt.Stringer.
func (*Key) String() string { return mem.Redacted }

// GoString implements fmt.GoStringer.
func (*Key) GoString() string { return mem.Redacted }

// Format implements fmt.Formatter for every verb.
func (*Key) Format(s fmt.State, _ rune) { io.WriteString(s, mem.Redacted) }

// LogValue implements slog.LogValuer.
func (*Key) LogValue() slog.Value { return slog.StringValue(mem.Redacted) }

// MarshalJSON implements json.Marshaler.
func (*Key) MarshalJSON() ([]byte, error) { return []byte(`"` + mem.Redacted + `"`), nil }

// MarshalText implements encoding.TextMarshaler.
func (*Key) MarshalText() ([]byte, error) { return []byte(mem.Redacted), nil }
