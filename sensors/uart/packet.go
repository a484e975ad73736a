package uart

import (
	"encoding/binary"
	"fmt"
)

// Layout of a packet, as in the data sheets: header 0xEF01, address (4 bytes), identifier (1), length of what follows (2),
// content, checksum (2): the sum of identifier, length and content modulo 65,536. All numbers are big-endian.
const (
	header     = 0xEF01
	headBytes  = 9
	sumBytes   = 2
	MaxContent = 256 // bytes of content; the largest packet size that a module can be set to
	maxPacket  = headBytes + MaxContent + sumBytes
	AnyAddress = 0xFFFFFFFF // the address that modules are made with
	minLength  = sumBytes
)

// Kind is the identifier of a packet.
type Kind byte

// Kinds of packets.
const (
	Command Kind = 0x01
	Data    Kind = 0x02 // more follows
	Ack     Kind = 0x07
	End     Kind = 0x08 // the last of the data
)

func (k Kind) known() bool { return k == Command || k == Data || k == Ack || k == End }

// Packet is one packet. Content is borrowed from whoever decoded it.
type Packet struct {
	Address uint32
	Kind    Kind
	Content []byte
}

// Append appends the packet as it goes over the line. Content of more than MaxContent bytes panics: callers cut data.
func (p Packet) Append(dst []byte) []byte {
	if len(p.Content) > MaxContent {
		panic(fmt.Sprintf("uart: %d bytes in a packet, at most %d", len(p.Content), MaxContent))
	}
	dst = binary.BigEndian.AppendUint16(dst, header)
	dst = binary.BigEndian.AppendUint32(dst, p.Address)
	start := len(dst)
	dst = append(dst, byte(p.Kind))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(p.Content)+sumBytes))
	dst = append(dst, p.Content...)
	return binary.BigEndian.AppendUint16(dst, sum(dst[start:]))
}

// sum is the checksum over identifier, length and content.
func sum(b []byte) (s uint16) {
	for _, v := range b {
		s += uint16(v)
	}
	return s
}

// Damage is a kind of what can be wrong on the line.
type Damage int

// Kinds of damage.
const (
	Noise       Damage = iota // bytes that belong to no packet
	BadChecksum               // the sum does not fit
	BadLength                 // a length that no packet has
	BadKind                   // an identifier that no packet has
	BadAddress                // a whole packet of another module
	Truncated                 // the line fell silent within a packet
	Unexpected                // a whole packet that has no place here, such as the end of the data before all of it came
	damages                   // how many there are
	noDamage    Damage = -1
)

var damageNames = [damages]string{
	Noise: "noise between packets", BadChecksum: "bad checksum", BadLength: "impossible length", BadKind: "unknown packet",
	BadAddress: "packet of another address", Truncated: "packet cut off", Unexpected: "packet out of place",
}

func (d Damage) String() string {
	if d < 0 || d >= damages {
		return fmt.Sprintf("Damage(%d)", int(d))
	}
	return damageNames[d]
}

// Decoder finds packets in what comes over a line. It never fails: damage is counted and passed over, and scanning goes on
// one byte behind the damaged header, so that a false length cannot swallow the packets behind it. The zero value is ready.
type Decoder struct {
	Address uint32 // whose packets are wanted
	Counts  [damages]uint64

	buf   []byte // what came and is not taken; at most maxPacket and one read
	start int
	noisy bool // the last bytes were noise, counted once a run
}

// Feed appends bytes from the line.
func (d *Decoder) Feed(b []byte) {
	if d.start > 0 {
		d.buf = d.buf[:copy(d.buf, d.buf[d.start:])]
		d.start = 0
	}
	d.buf = append(d.buf, b...)
}

// Next returns the next whole packet of the wanted address; false if more bytes are needed. Its content is valid until Feed.
func (d *Decoder) Next() (Packet, bool) {
	for {
		rest := d.buf[d.start:]
		n, p, damage := parse(rest)
		switch {
		case n == 0:
			return Packet{}, false
		case damage == Noise:
			if !d.noisy {
				d.Counts[Noise]++
			}
			d.noisy = true
			d.start += n
			continue
		case damage != noDamage:
			d.Counts[damage]++
			d.noisy = true // what is left of it is no second damage
			d.start += n
			continue
		}
		d.noisy = false
		d.start += n
		if p.Address != d.Address {
			d.Counts[BadAddress]++
			continue
		}
		return p, true
	}
}

// Flush drops what has come so far and reports whether a packet had begun in it, which is counted as cut off.
func (d *Decoder) Flush() bool {
	begun := len(d.buf)-d.start >= 2
	if begun {
		d.Counts[Truncated]++
	}
	d.forget()
	return begun
}

// forget drops what has come so far, uncounted, and overwrites it.
func (d *Decoder) forget() {
	clear(d.buf)
	d.buf, d.start, d.noisy = d.buf[:0], 0, false
}

// parse looks at the front of b: how many bytes to take and what they are. n of 0 means that more are needed.
func parse(b []byte) (n int, p Packet, damage Damage) {
	if skip := toHeader(b); skip > 0 {
		return skip, p, Noise
	}
	if len(b) < headBytes {
		return 0, p, noDamage
	}
	p.Address, p.Kind = binary.BigEndian.Uint32(b[2:]), Kind(b[6])
	length := int(binary.BigEndian.Uint16(b[7:]))
	switch {
	case !p.Kind.known():
		return 1, p, BadKind
	case length < minLength || length > MaxContent+sumBytes:
		return 1, p, BadLength
	case len(b) < headBytes+length:
		return 0, p, noDamage
	}
	end := headBytes + length
	if sum(b[6:end-sumBytes]) != binary.BigEndian.Uint16(b[end-sumBytes:]) {
		return 1, p, BadChecksum
	}
	p.Content = b[headBytes : end-sumBytes]
	return end, p, noDamage
}

// toHeader is how many bytes lie before the first possible header.
func toHeader(b []byte) int {
	for i := range b {
		if b[i] == header>>8 && (i+1 == len(b) || b[i+1] == header&0xFF) {
			return i
		}
	}
	return len(b)
}
