package secure

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
)

// Envelope layout, all integers big-endian:
//
//	offset  size  what
//	     0     1  format, 0xE1
//	     1     4  version of the key, uint32
//	     5    12  nonce, random
//	    17     n  ciphertext, as long as the plaintext
//	  17+n    16  AES-256-GCM tag
//
// The first five bytes are part of the authenticated data.
const (
	envelopeFormat = 0xE1
	headerBytes    = 5
	nonceBytes     = 12
	tagBytes       = 16
	keyBytes       = 32
)

// EnvelopeOverhead is how many bytes an envelope is longer than its plaintext.
const EnvelopeOverhead = headerBytes + nonceBytes + tagBytes

// envelope is a parsed, not yet authenticated, envelope. Its slices point into
// the bytes it was parsed from.
type envelope struct {
	header     []byte
	keyVersion uint32
	nonce      []byte
	sealed     []byte // ciphertext and tag
}

// parseEnvelope splits raw. It fails with ErrFormat and never panics.
func parseEnvelope(raw []byte) (envelope, error) {
	if len(raw) < EnvelopeOverhead {
		return envelope{}, fmt.Errorf("cannot read envelope of %d bytes, at least %d are needed: %w", len(raw), EnvelopeOverhead, ErrFormat)
	}
	if raw[0] != envelopeFormat {
		return envelope{}, fmt.Errorf("cannot read envelope of format %#02x: %w", raw[0], ErrFormat)
	}
	return envelope{
		header:     raw[:headerBytes],
		keyVersion: binary.BigEndian.Uint32(raw[1:headerBytes]),
		nonce:      raw[headerBytes : headerBytes+nonceBytes],
		sealed:     raw[headerBytes+nonceBytes:],
	}, nil
}

// sealEnvelope encrypts plaintext under a 32-byte key. Nonces are random: a key
// must not seal more than 2^32 envelopes (NIST SP 800-38D, section 8.3).
func sealEnvelope(key []byte, keyVersion uint32, plaintext []byte, domain string, aad AAD) (out []byte, err error) {
	header := make([]byte, headerBytes, EnvelopeOverhead+len(plaintext))
	header[0] = envelopeFormat
	binary.BigEndian.PutUint32(header[1:], keyVersion)
	out = header[:headerBytes+nonceBytes]
	rand.Read(out[headerBytes:])
	erasing(func() {
		var aead cipher.AEAD
		if aead, err = newGCM(key); err == nil {
			out = aead.Seal(out, out[headerBytes:], plaintext, aad.encode(domain, header))
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// openEnvelope decrypts e into dst, whose length is that of the plaintext. On
// failure dst holds no plaintext.
func openEnvelope(dst, key []byte, e envelope, domain string, aad AAD) (err error) {
	erasing(func() {
		var aead cipher.AEAD
		if aead, err = newGCM(key); err != nil {
			return
		}
		_, err = aead.Open(dst[:0:len(dst)], e.nonce, e.sealed, aad.encode(domain, e.header))
		if err != nil {
			clear(dst)
			err = fmt.Errorf("cannot open envelope for %q/%q: %w", aad.Bucket, aad.Key, ErrTampered)
		}
	})
	return err
}

// newGCM expands key on the Go heap; the result is for one call.
func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("cannot use key: %v", err)
	}
	return cipher.NewGCM(block)
}
