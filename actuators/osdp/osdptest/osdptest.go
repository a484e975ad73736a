// Package osdptest is a control panel (CP) of OSDP, written from the specification and not from the peripheral: it shares no
// code with it. It is imported from tests only.
//
// It sends one command at a time and waits for the reply. Bend alters what goes out, for what must be refused.
package osdptest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"time"
)

// Port is the panel's end of the line. A Read must end by itself.
type Port interface {
	io.ReadWriter
	SetReadDeadline(time.Time) error
}

// ErrSilence means that the peripheral did not reply.
var ErrSilence = errors.New("no reply")

// Panel is a control panel and what it knows of one peripheral.
type Panel struct {
	Port     Port
	Address  byte
	Key      [16]byte
	Checksum bool                // instead of the CRC
	Default  bool                // asks for SCBK-D
	Patience time.Duration       // 0 means 500 ms
	Bend     func([]byte) []byte // of each frame that goes out; nil leaves it
	Sent     []byte              // the latest frame, as it was before Bend

	seq                  byte
	secure               bool
	enc, mac1, mac2      cipher.Block
	cmac, rmac           [16]byte
	randA                [8]byte
	ClientUID, LastReply []byte
}

// Reset begins anew: the next command has sequence 0, and no channel.
func (p *Panel) Reset() { p.seq, p.secure = 0, false }

// SkipTo makes the next command have this sequence number.
func (p *Panel) SkipTo(seq byte) { p.seq = seq }

// Do sends a command, in the channel if there is one, and returns the reply's code and data.
func (p *Panel) Do(code byte, data ...byte) (byte, []byte, error) {
	if !p.secure {
		return p.exchange(0, nil, code, data)
	}
	if len(data) == 0 {
		return p.exchange(0x15, nil, code, nil)
	}
	plain := append(bytes.Clone(data), 0x80)
	for len(plain)%16 != 0 {
		plain = append(plain, 0)
	}
	cipher.NewCBCEncrypter(p.enc, not(p.rmac)).CryptBlocks(plain, plain)
	return p.exchange(0x17, nil, code, plain)
}

// Again sends the latest frame once more, as a panel does that got no reply, or as somebody who recorded it.
func (p *Panel) Again(frame []byte) (byte, []byte, error) {
	if _, err := p.Port.Write(frame); err != nil {
		return 0, nil, err
	}
	b, err := p.receive()
	if err != nil {
		return 0, nil, err
	}
	at := 5
	if b[4]&8 != 0 {
		at += int(b[5])
	}
	return b[at], b[at+1:], nil
}

// Open sets up the secure channel.
func (p *Panel) Open() error {
	p.Reset()
	for i := range p.randA {
		p.randA[i] = byte(i*29 + int(time.Now().UnixNano()>>i))
	}
	which := byte(1)
	if p.Default {
		which = 0
	}
	code, data, err := p.exchange(0x11, []byte{which}, 0x76, p.randA[:])
	switch {
	case err != nil:
		return err
	case code != 0x76 || len(data) != 32:
		return fmt.Errorf("the challenge is answered with %#02x % x", code, data)
	}
	p.ClientUID = bytes.Clone(data[:8])
	randB := data[8:16]
	p.derive()
	want := make([]byte, 16)
	p.enc.Encrypt(want, append(bytes.Clone(p.randA[:]), randB...))
	if !bytes.Equal(want, data[16:]) {
		return errors.New("the peripheral does not know the key")
	}
	server := make([]byte, 16)
	p.enc.Encrypt(server, append(bytes.Clone(randB), p.randA[:]...))
	return p.finish(server, which)
}

// Forge completes a challenge with a cryptogram that is not the right one.
func (p *Panel) Forge() error {
	p.Reset()
	if code, _, err := p.exchange(0x11, []byte{1}, 0x76, p.randA[:]); err != nil || code != 0x76 {
		return fmt.Errorf("challenge: %#02x, %w", code, err)
	}
	p.derive()
	return p.finish(make([]byte, 16), 1)
}

func (p *Panel) finish(server []byte, which byte) error {
	code, data, err := p.exchange(0x13, []byte{which}, 0x77, server)
	switch {
	case err != nil:
		return err
	case code != 0x78 || p.LastReply[7] != 1:
		return fmt.Errorf("the cryptogram is answered with %#02x, status %#02x", code, p.LastReply[7])
	}
	var want [16]byte
	p.mac1.Encrypt(want[:], server)
	p.mac2.Encrypt(want[:], want[:])
	if !bytes.Equal(want[:], data) {
		return errors.New("the initial R-MAC is wrong")
	}
	p.rmac, p.secure = want, true
	return nil
}

func (p *Panel) derive() {
	key := p.Key
	if p.Default {
		copy(key[:], "0123456789:;<=>?")
	}
	base, _ := aes.NewCipher(key[:])
	session := func(first, second byte) cipher.Block {
		in := make([]byte, 16)
		in[0], in[1] = first, second
		copy(in[2:], p.randA[:6])
		base.Encrypt(in, in)
		b, _ := aes.NewCipher(in)
		return b
	}
	p.enc, p.mac1, p.mac2 = session(0x01, 0x82), session(0x01, 0x01), session(0x01, 0x02)
}

func not(v [16]byte) []byte {
	out := make([]byte, 16)
	for i := range v {
		out[i] = v[i] ^ 0xFF
	}
	return out
}

// tag is the MAC over a message, chained to another.
func (p *Panel) tag(message []byte, chain [16]byte) (out [16]byte) {
	m := bytes.Clone(message)
	if len(m)%16 != 0 {
		m = append(m, 0x80)
	}
	for len(m)%16 != 0 {
		m = append(m, 0)
	}
	iv := chain[:]
	if head := m[:len(m)-16]; len(head) > 0 {
		cipher.NewCBCEncrypter(p.mac1, iv).CryptBlocks(head, head)
		iv = head[len(head)-16:]
	}
	cipher.NewCBCEncrypter(p.mac2, iv).CryptBlocks(out[:], m[len(m)-16:])
	return out
}

// exchange sends one frame and takes the reply apart.
func (p *Panel) exchange(scs byte, block []byte, code byte, data []byte) (byte, []byte, error) {
	control, tail := p.seq|4, 2
	if p.Checksum {
		control, tail = p.seq, 1
	}
	body := []byte{}
	if scs != 0 {
		control |= 8
		body = append([]byte{byte(2 + len(block)), scs}, block...)
	}
	body = append(append(body, code), data...)
	size := 5 + len(body) + tail
	if scs >= 0x15 {
		size += 4
	}
	b := append([]byte{0x53, p.Address, byte(size), byte(size >> 8), control}, body...)
	if scs >= 0x15 {
		p.cmac = p.tag(b, p.rmac)
		b = append(b, p.cmac[:4]...)
	}
	p.Sent = p.seal(b)
	p.seq = p.seq%3 + 1
	out := p.Sent
	if p.Bend != nil {
		out = p.Bend(bytes.Clone(out))
	}
	if _, err := p.Port.Write(out); err != nil {
		return 0, nil, err
	}
	reply, err := p.receive()
	if err != nil {
		return 0, nil, err
	}
	return p.unwrap(reply)
}

func (p *Panel) seal(b []byte) []byte {
	if p.Checksum {
		var s byte
		for _, v := range b {
			s += v
		}
		return append(b, -s)
	}
	c := crc(b)
	return append(b, byte(c), byte(c>>8))
}

func crc(b []byte) uint16 {
	c := uint16(0x1D0F)
	for _, v := range b {
		c = c>>8 | c<<8
		c ^= uint16(v)
		c ^= c & 0xFF >> 4
		c ^= c << 12
		c ^= c & 0xFF << 5
	}
	return c
}

// receive reads one whole frame.
func (p *Panel) receive() ([]byte, error) {
	patience := p.Patience
	if patience == 0 {
		patience = 500 * time.Millisecond
	}
	deadline := time.Now().Add(patience)
	var got []byte
	buf := make([]byte, 256)
	for {
		if err := p.Port.SetReadDeadline(deadline); err != nil {
			return nil, err
		}
		n, err := p.Port.Read(buf)
		got = append(got, buf[:n]...)
		if len(got) >= 4 && len(got) >= int(got[2])|int(got[3])<<8 {
			return got, p.check(got)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w, % x", ErrSilence, err, got)
		}
	}
}

func (p *Panel) check(b []byte) error {
	if len(b) < 7 || b[0] != 0x53 || b[1] != p.Address|0x80 && p.Address != 0x7F || len(b) != int(b[2])|int(b[3])<<8 {
		return fmt.Errorf("no reply of this peripheral: % x", b)
	}
	if b[4]&4 != 0 {
		if c := crc(b[:len(b)-2]); byte(c) != b[len(b)-2] || byte(c>>8) != b[len(b)-1] {
			return fmt.Errorf("the reply's CRC is wrong: % x", b)
		}
	}
	p.LastReply = b
	return nil
}

// unwrap checks the reply's MAC and decrypts it.
func (p *Panel) unwrap(b []byte) (byte, []byte, error) {
	body, tail := b, 1
	if b[4]&4 != 0 {
		tail = 2
	}
	body = b[:len(b)-tail]
	if b[4]&8 == 0 {
		return body[5], body[6:], nil
	}
	scs, at := b[6], 5+int(b[5])
	if scs != 0x16 && scs != 0x18 {
		return body[at], body[at+1:], nil
	}
	covered, mac := body[:len(body)-4], body[len(body)-4:]
	full := p.tag(covered, p.cmac)
	if !bytes.Equal(full[:4], mac) {
		return 0, nil, errors.New("the reply's MAC is wrong")
	}
	data := bytes.Clone(covered[at+1:])
	if scs == 0x18 {
		cipher.NewCBCDecrypter(p.enc, not(p.cmac)).CryptBlocks(data, data)
		data = bytes.TrimRight(data, "\x00")
		if len(data) == 0 || data[len(data)-1] != 0x80 {
			return 0, nil, errors.New("the reply's padding is wrong")
		}
		data = data[:len(data)-1]
	}
	p.rmac = full
	return covered[at], data, nil
}
