package uarttest

import (
	"encoding/binary"
	"slices"
	"time"
)

// obey plays one command.
func (m *Module) obey(c []byte) {
	m.commands[c[0]]++
	if m.jabber {
		m.write(slices.Repeat([]byte{0xEF, 0x55, 0x01, 0xEF}, 1<<16))
		return
	}
	if m.stuck {
		return
	}
	switch {
	case c[0] == 0x13 && len(c) == 5:
		m.reply(map[bool]byte{true: 0x00, false: 0x13}[binary.BigEndian.Uint32(c[1:]) == m.opts.Password])
	case c[0] == 0x12 && len(c) == 5:
		m.opts.Password = binary.BigEndian.Uint32(c[1:])
		m.reply(0x00)
	case c[0] == 0x0F:
		m.describe()
	case c[0] == 0x0E && len(c) == 3:
		m.adjust(c[1], c[2])
	case c[0] == 0x01:
		m.look()
	case c[0] == 0x0A:
		m.upload()
	case (c[0] == 0x50 || c[0] == 0x51) && !m.opts.NoLight && !m.opts.Ring:
		m.lit = c[0] == 0x50
		m.reply(0x00)
	case c[0] == 0x35 && len(c) == 5 && m.opts.Ring:
		m.lit = c[1] != 4
		m.reply(0x00)
	default:
		m.reply(0x19)
	}
}

func (m *Module) describe() {
	size := byte(slices.Index([]int{32, 64, 128, 256}, m.opts.PacketBytes))
	b := []byte{0x00, 0, 0, 0, 0x09, 0x03, 0xE8, 0, 3}
	b = binary.BigEndian.AppendUint32(b, m.opts.Address)
	b = append(b, 0, size, 0, byte(m.opts.Baud/9600))
	m.reply(b...)
}

func (m *Module) adjust(register, value byte) {
	switch {
	case register == 4 && value >= 1 && value <= 12:
		m.reply(0x00) // at the rate of before
		m.opts.Baud = int(value) * 9600
	case register == 5 && value >= 1 && value <= 5:
		m.reply(0x00)
	case register == 6 && value <= 3:
		m.opts.PacketBytes = 32 << value
		m.reply(0x00)
	default:
		m.reply(0x1A)
	}
}

// look plays a look at the glass.
func (m *Module) look() {
	if m.empty > 0 || len(m.touches) == 0 {
		m.empty = max(0, m.empty-1)
		m.reply(0x02)
		return
	}
	t := &m.touches[0]
	m.looks++
	switch {
	case t.Gone && m.looks > 1, m.fetched, t.Looks > 0 && m.looks > t.Looks: // nobody there any more
		m.touches, m.looks, m.fetched, m.failed = m.touches[1:], 0, false, 0
		m.taken++
		m.empty = 3 // people are slower than a look: the glass is empty for some
		m.reply(0x02)
	case t.Gone, m.failed < t.FailsAfter:
		m.failed++
		m.reply(0x03)
	default:
		m.buffer = pack(t.Gray)
		if t.Vanishes {
			m.buffer = nil
			m.fetched = true
		}
		m.reply(0x00)
	}
}

// pack makes 4 bits of each pixel.
func pack(gray []byte) []byte {
	b := make([]byte, len(gray)/2)
	for i := range b {
		b[i] = gray[2*i]&0xF0 | gray[2*i+1]>>4
	}
	return b
}

// upload sends the picture. A finger leaves the glass behind it, unless the touch says how long it stays.
func (m *Module) upload() {
	if m.buffer == nil {
		m.reply(0x0F)
		return
	}
	m.reply(0x00)
	if len(m.touches) > 0 && m.touches[0].Looks == 0 {
		m.fetched = true
	}
	n := m.opts.PacketBytes
	for i := 0; i*n < len(m.buffer); i++ {
		part, kind := m.buffer[i*n:min(len(m.buffer), (i+1)*n)], byte(0x02)
		if (i+1)*n >= len(m.buffer) {
			kind = 0x08
		}
		if !m.data(i, kind, part) {
			return
		}
	}
}

// data sends a packet of a picture; false if the rest does not come.
func (m *Module) data(i int, kind byte, part []byte) bool {
	for j, f := range m.faults {
		if !f.Reply && f.Packet == i {
			m.faults = slices.Delete(m.faults, j, j+1)
			return m.spoil(f.Damage, kind, part)
		}
	}
	m.write(m.packet(kind, part))
	return true
}

// reply acknowledges.
func (m *Module) reply(content ...byte) {
	for j, f := range m.faults {
		if f.Reply {
			m.faults = slices.Delete(m.faults, j, j+1)
			m.spoil(f.Damage, 0x07, content)
			return
		}
	}
	m.write(m.packet(0x07, content))
}

// spoil sends a packet with damage; false if the rest does not come.
func (m *Module) spoil(d Damage, kind byte, content []byte) bool {
	p := m.packet(kind, content)
	switch d {
	case FlipData:
		p[9+len(content)/2] ^= 0x10
	case FlipSum:
		p[len(p)-1] ^= 0x01
	case LongLength:
		p[7] = 0x7F
	case OtherLength:
		p[8] ^= 0x01
	case OtherKind:
		p[6] = 0x05
	case OtherAddress:
		p[5] ^= 0xFF
	case CutPacket:
		p = p[:len(p)/2]
	case CutAll:
		m.write(p[:len(p)/2])
		return false
	case LosePacket:
		return true
	case TwicePacket:
		p = append(p, p...)
	case NoiseBefore:
		p = append([]byte{0x00, 0xEF, 0x13, 0xEF}, p...)
	case EarlyEnd:
		p = m.packet(0x08, content)
	case LateEnd:
		p = m.packet(0x02, content)
	case AsReply:
		p = m.packet(0x07, content)
	}
	m.write(p)
	return true
}

func (m *Module) packet(kind byte, content []byte) []byte {
	b := []byte{0xEF, 0x01}
	b = binary.BigEndian.AppendUint32(b, m.opts.Address)
	b = append(b, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(content)+2))
	b = append(b, content...)
	var s uint16
	for _, v := range b[6:] {
		s += uint16(v)
	}
	return binary.BigEndian.AppendUint16(b, s)
}

// write sends bytes in the time that they take. It lets go of the lock only at the end: a module does one thing at a time.
func (m *Module) write(b []byte) {
	took := time.Duration(len(b)) * 10 * time.Second / time.Duration(m.opts.Baud)
	m.lineTime += took
	if m.opts.Speed > 0 {
		if now := time.Now(); m.due.Before(now) {
			m.due = now
		}
		m.due = m.due.Add(time.Duration(float64(took) / m.opts.Speed))
		time.Sleep(time.Until(m.due))
	}
	m.pty.Master.SetWriteDeadline(time.Now().Add(10 * time.Second)) //nolint:errcheck // a line that is gone fails in Write
	m.pty.Master.Write(b)                                           //nolint:errcheck // likewise
}
