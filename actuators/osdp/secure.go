package osdp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"errors"
)

// KeyBytes is the length of a secure channel base key (SCBK).
const KeyBytes = 16

// defaultKey is SCBK-D of the specification, which everybody knows. This peripheral never takes it.
var defaultKey = [KeyBytes]byte{'0', '1', '2', '3', '4', '5', '6', '7', '8', '9', ':', ';', '<', '=', '>', '?'}

// channel is one secure channel (clause D of the specification), from the challenge on.
type channel struct {
	enc, mac1, mac2 cipher.Block
	randA, randB    [8]byte
	last            [16]byte // the MAC of the latest message, in full: what the next chains to
	open            bool
}

// newChannel derives the session's keys from the base key and the panel's random number, and draws ours.
func newChannel(key [KeyBytes]byte, randA []byte) *channel {
	c := &channel{}
	copy(c.randA[:], randA)
	rand.Read(c.randB[:])
	base := block(key[:])
	derive := func(a, b byte) cipher.Block {
		in := [16]byte{a, b}
		copy(in[2:8], c.randA[:6])
		base.Encrypt(in[:], in[:])
		defer clear(in[:])
		return block(in[:])
	}
	c.enc, c.mac1, c.mac2 = derive(1, 0x82), derive(1, 1), derive(1, 2)
	return c
}

func block(key []byte) cipher.Block {
	b, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // keys are of 16 bytes
	}
	return b
}

// client is the peripheral's cryptogram, server the panel's.
func (c *channel) client() (out [16]byte) { return c.cryptogram(c.randA, c.randB) }
func (c *channel) server() (out [16]byte) { return c.cryptogram(c.randB, c.randA) }

func (c *channel) cryptogram(a, b [8]byte) (out [16]byte) {
	copy(out[:], a[:])
	copy(out[8:], b[:])
	c.enc.Encrypt(out[:], out[:])
	return out
}

// accept opens the channel if the panel's cryptogram is right; then last is the initial R-MAC.
func (c *channel) accept(cryptogram []byte) bool {
	want := c.server()
	if subtle.ConstantTimeCompare(want[:], cryptogram) != 1 {
		return false
	}
	c.mac1.Encrypt(c.last[:], want[:])
	c.mac2.Encrypt(c.last[:], c.last[:])
	c.open = true
	return true
}

// mac is the MAC of a message in full, chained to the one before: CBC with the first key, the last block with the second.
func (c *channel) mac(message []byte) [16]byte {
	v := c.last
	for padded := pad(message, false); len(padded) > 0; padded = padded[16:] {
		subtle.XORBytes(v[:], v[:], padded[:16])
		if len(padded) > 16 {
			c.mac1.Encrypt(v[:], v[:])
		} else {
			c.mac2.Encrypt(v[:], v[:])
		}
	}
	return v
}

// sign makes the MAC of a message that is sent and chains it.
func (c *channel) sign(message []byte) []byte {
	c.last = c.mac(message)
	return c.last[:]
}

// verify checks the MAC of a message that came, and chains it if it is right.
func (c *channel) verify(message, mac []byte) bool {
	want := c.mac(message)
	if subtle.ConstantTimeCompare(want[:macBytes], mac) != 1 {
		return false
	}
	c.last = want
	return true
}

// iv is the complement of the MAC before.
func (c *channel) iv() (iv [16]byte) {
	for i, v := range c.last {
		iv[i] = ^v
	}
	return iv
}

// encrypt returns data padded and encrypted. It must be called before sign of the same message.
func (c *channel) encrypt(data []byte) []byte {
	out, iv := pad(data, true), c.iv()
	cipher.NewCBCEncrypter(c.enc, iv[:]).CryptBlocks(out, out)
	return out
}

var errPadding = errors.New("encrypted data is not padded")

// decrypt returns the data of a message whose MAC is checked; iv is that of before verify.
func (c *channel) decrypt(data []byte, iv [16]byte) ([]byte, error) {
	if len(data) == 0 || len(data)%16 != 0 {
		return nil, errPadding
	}
	out := make([]byte, len(data))
	cipher.NewCBCDecrypter(c.enc, iv[:]).CryptBlocks(out, data)
	for i := len(out) - 1; i >= 0; i-- {
		if out[i] == 0x80 {
			return out[:i], nil
		}
		if out[i] != 0 {
			break
		}
	}
	return nil, errPadding
}

// pad copies b and appends 0x80 and zeros up to a whole block: always, or only where b is none.
func pad(b []byte, always bool) []byte {
	out := append(make([]byte, 0, len(b)+16), b...)
	if !always && len(b) > 0 && len(b)%16 == 0 {
		return out
	}
	out = append(out, 0x80)
	for len(out)%16 != 0 {
		out = append(out, 0)
	}
	return out
}
