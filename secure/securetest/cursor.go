package securetest

import "encoding/binary"

// Bits of TPMA_SESSION.
const (
	attributeDecrypt = 1 << 5
	attributeEncrypt = 1 << 6
)

// auth is one entry of an authorisation area.
type auth struct {
	handle     uint32
	nonce      []byte
	attributes byte
}

// cursor reads TPM structures; after a read past the end bad is set and every
// read gives zeros.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if c.bad || n < 0 || n > len(c.b) {
		c.bad = true
		return nil
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) u16() uint16 {
	if b := c.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if b := c.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// sized reads a TPM2B.
func (c *cursor) sized() []byte { return c.take(int(c.u16())) }

// byte reads one byte.
func (c *cursor) byte() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

// auths reads the authorisation area of a command, sizeBytes long.
func (c *cursor) auths(sizeBytes int) []auth {
	area := &cursor{b: c.take(sizeBytes)}
	var out []auth
	for !c.bad && len(area.b) > 0 {
		a := auth{handle: area.u32()}
		a.nonce = area.sized()
		a.attributes = area.byte()
		area.sized() // HMAC
		c.bad = area.bad
		out = append(out, a)
	}
	return out
}

// answers reads the n authorisations at the end of a response.
func (c *cursor) answers(n int) []auth {
	var out []auth
	for range n {
		a := auth{nonce: c.sized(), attributes: c.byte()}
		c.sized() // HMAC
		out = append(out, a)
	}
	return out
}
