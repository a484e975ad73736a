package osdp

import (
	"encoding/binary"
	"errors"
)

// Layout of a frame (SIA OSDP 2.2, clause 5): start of message, address (bit 7: of a reply), length (2, little-endian, of
// the whole frame), control, security block if there is one, code, data, MAC (4) in a secure channel, and CRC (2) or
// checksum (1).
const (
	som        = 0x53
	replyBit   = 0x80
	broadcast  = 0x7F
	headBytes  = 5
	macBytes   = 4
	maxFrame   = 1024 // longer ones are noise: what a peripheral announces as its buffer
	ctrlSeq    = 0x03
	ctrlCRC    = 0x04
	ctrlSCB    = 0x08
	minFrame   = headBytes + 1 + 1
	minSCB     = 2
	shortestSC = 0x11
	longestSC  = 0x18
)

// Security block types.
const (
	scs11 = 0x11 // challenge
	scs12 = 0x12 // client cryptogram
	scs13 = 0x13 // server cryptogram
	scs14 = 0x14 // initial R-MAC
	scs15 = 0x15 // command with MAC
	scs16 = 0x16 // reply with MAC
	scs17 = 0x17 // command with MAC, data encrypted
	scs18 = 0x18 // reply with MAC, data encrypted
)

// frame is a decoded frame. Its slices are borrowed from the bytes that were decoded.
type frame struct {
	address byte // without the bit of a reply
	reply   bool
	seq     byte
	crc     bool
	scs     byte // type of the security block; 0: there is none
	block   []byte
	code    byte
	data    []byte // as on the wire: encrypted where it is
	mac     []byte // nil where there is none
	covered []byte // what the MAC is over
}

var (
	errMore     = errors.New("the frame is not whole")
	errChecksum = errors.New("checksum does not fit")
	errLayout   = errors.New("the frame's parts do not fit its length")
)

// decode reads the frame at the front of b, which begins with a start of message, and its length. Errors: errMore, with n 0;
// errChecksum and errLayout, with the length that the frame claims.
func decode(b []byte) (f frame, n int, err error) {
	if len(b) < headBytes {
		return f, 0, errMore
	}
	n = int(binary.LittleEndian.Uint16(b[2:]))
	if b[0] != som || n < minFrame || n > maxFrame {
		return f, 1, errLayout
	}
	if len(b) < n {
		return f, 0, errMore
	}
	b = b[:n]
	f.address, f.reply, f.seq, f.crc = b[1]&^replyBit, b[1]&replyBit != 0, b[4]&ctrlSeq, b[4]&ctrlCRC != 0
	body := b[:n-1]
	if f.crc {
		body = b[:n-2]
		if binary.LittleEndian.Uint16(b[n-2:]) != crc16(body) {
			return f, n, errChecksum
		}
	} else if checksum(body) != b[n-1] {
		return f, n, errChecksum
	}
	return f, n, f.split(body, b[4]&ctrlSCB != 0)
}

// split finds the parts of a frame that came through whole.
func (f *frame) split(body []byte, secured bool) error {
	at := headBytes
	if secured {
		if len(body) < at+minSCB || int(body[at]) < minSCB || len(body) < at+int(body[at])+1 {
			return errLayout
		}
		f.scs, f.block = body[at+1], body[at+2:at+int(body[at])]
		if f.scs < shortestSC || f.scs > longestSC {
			return errLayout
		}
		at += int(body[at])
	}
	if f.scs >= scs15 {
		if len(body) < at+1+macBytes {
			return errLayout
		}
		f.mac = body[len(body)-macBytes:]
		body = body[:len(body)-macBytes]
	}
	if len(body) < at+1 {
		return errLayout
	}
	f.covered, f.code, f.data = body, body[at], body[at+1:]
	return nil
}

// encode appends the frame: mac, if not nil, makes its MAC of what it covers.
func (f *frame) encode(dst []byte, mac func(covered []byte) []byte) []byte {
	start, address, control, tail := len(dst), f.address, f.seq, 1
	if f.reply {
		address |= replyBit
	}
	if f.crc {
		control, tail = control|ctrlCRC, 2
	}
	size := headBytes + 1 + len(f.data) + tail
	if f.scs != 0 {
		control |= ctrlSCB
		size += minSCB + len(f.block)
	}
	if mac != nil {
		size += macBytes
	}
	dst = append(dst, som, address, byte(size), byte(size>>8), control)
	if f.scs != 0 {
		dst = append(dst, byte(minSCB+len(f.block)), f.scs)
		dst = append(dst, f.block...)
	}
	dst = append(append(dst, f.code), f.data...)
	if mac != nil {
		dst = append(dst, mac(dst[start:])[:macBytes]...)
	}
	if f.crc {
		return binary.LittleEndian.AppendUint16(dst, crc16(dst[start:]))
	}
	return append(dst, checksum(dst[start:]))
}

// crc16 is the CRC of the specification: polynomial 0x1021, start 0x1D0F, highest bit first.
func crc16(b []byte) uint16 {
	crc := uint16(0x1D0F)
	for _, v := range b {
		crc ^= uint16(v) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}

// checksum is the two's complement of the sum.
func checksum(b []byte) (s byte) {
	for _, v := range b {
		s -= v
	}
	return s
}
