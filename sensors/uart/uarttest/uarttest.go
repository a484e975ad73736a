// Package uarttest plays a fingerprint module of the ZFM and R30x family at a pseudo-terminal, written from the public data
// sheets and not from the driver: it has its own packets. It is imported from tests only.
//
// Promises: bytes go out at the module's baud rate, ten bit times each, divided by Options.Speed (0 does not wait); LineTime
// counts what they would have taken. What the host sends at another rate than the module's arrives as garbage, and what the
// module says then is garbage to the host. Faults are played once each, in order. One goroutine, ended by Close.
//
// It matches no fingers and keeps no templates.
package uarttest

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"time"
)

// Options describe the module.
type Options struct {
	Baud        int     // a multiple of 9,600; 0 means 57,600, as they are made
	Speed       float64 // times real time; 0 never waits
	Address     uint32  // 0 means 0xFFFFFFFF
	Password    uint32
	PacketBytes int  // 0 means 128
	NoLight     bool // knows no command of a light
	Ring        bool // has the ring of the R503 instead of a backlight
	Mute        bool // says nothing to what comes at a wrong rate
}

// Fault is one thing that goes wrong.
type Fault struct {
	Reply  bool // with an acknowledgement; else with a packet of a picture
	Packet int  // which packet of the picture, from 0
	Damage Damage
}

// Damage is what is done to a packet.
type Damage int

// Kinds of damage. Each alters one packet of the line.
const (
	FlipData     Damage = iota // a bit of the content: the checksum does not fit
	FlipSum                    // a bit of the checksum
	LongLength                 // a length that no packet has
	OtherLength                // a shorter length that a packet could have
	OtherKind                  // an identifier that does not exist
	OtherAddress               // the packet of another module
	CutPacket                  // only half of it, the rest goes on
	CutAll                     // half of it, then silence
	LosePacket                 // it never comes
	TwicePacket                // it comes two times
	NoiseBefore                // garbage in front of it, with half a header in it
	EarlyEnd                   // it says that it is the last
	LateEnd                    // the last says that it is not
	AsReply                    // an acknowledgement amid the data
)

// Damages are all of them with their names.
var Damages = map[string]Damage{
	"bit of the data": FlipData, "bit of the checksum": FlipSum, "impossible length": LongLength, "wrong length": OtherLength,
	"unknown packet": OtherKind, "wrong address": OtherAddress, "cut packet": CutPacket, "cut line": CutAll, "lost packet": LosePacket,
	"packet twice": TwicePacket, "noise": NoiseBefore, "early end": EarlyEnd, "late end": LateEnd, "reply amid data": AsReply,
}

// Touch is one finger on the glass.
type Touch struct {
	Gray       []byte // 256 x 288 pixels, or of any even size: what the sensor sees
	FailsAfter int    // pictures that fail before one succeeds; over a few it is a finger that slides
	Looks      int    // looks at the glass for which it stays; 0: until the picture is fetched, and one look more
	Gone       bool   // it is lifted while it is looked at: the picture fails, and there is nobody at the next look
	Vanishes   bool   // the picture is taken, but the module has lost it when it should be sent
}

// Module is a module with a line.
type Module struct {
	pty  *PTY
	done chan struct{}

	mu       sync.Mutex
	opts     Options
	stuck    bool // says nothing any more
	jabber   bool // says something always
	faults   []Fault
	touches  []Touch
	looks    int // at the touch in front
	empty    int // looks for which nobody touches the glass
	fetched  bool
	failed   int
	buffer   []byte // the packed picture
	taken    int    // touches that are over
	lit      bool
	lineTime time.Duration
	due      time.Time
	commands map[byte]int
}

// New starts a module.
func New(o Options) (*Module, error) {
	if o.Baud == 0 {
		o.Baud = 57600
	}
	if o.Address == 0 {
		o.Address = 0xFFFFFFFF
	}
	if o.PacketBytes == 0 {
		o.PacketBytes = 128
	}
	p, err := OpenPTY()
	if err != nil {
		return nil, err
	}
	m := &Module{pty: p, opts: o, done: make(chan struct{}), commands: map[byte]int{}}
	go m.run()
	return m, nil
}

// Path of the port.
func (m *Module) Path() string { return m.pty.Path }

// Close takes the module off its line.
func (m *Module) Close() {
	m.pty.Close()
	<-m.done
}

// Put lays fingers on the glass, one after the other.
func (m *Module) Put(t ...Touch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.touches = append(m.touches, t...)
}

// Break plays faults, each at the next chance for it.
func (m *Module) Break(f ...Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = append(m.faults, f...)
}

// Stick makes the module say nothing, or mend.
func (m *Module) Stick(on bool) { m.set(func() { m.stuck = on }) }

// Jabber makes the module answer everything with endless garbage, or mend.
func (m *Module) Jabber(on bool) { m.set(func() { m.jabber = on }) }

func (m *Module) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// State is what a test asks about.
type State struct {
	Taken, Left int // touches
	Lit         bool
	Baud        int
	Password    uint32
	LineTime    time.Duration // that all bytes to the host took, at the module's rate
	FaultsLeft  int
	Commands    map[byte]int
}

// State is a snapshot.
func (m *Module) State() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := make(map[byte]int, len(m.commands))
	for k, n := range m.commands {
		c[k] = n
	}
	return State{m.taken, len(m.touches), m.lit, m.opts.Baud, m.opts.Password, m.lineTime, len(m.faults), c}
}

// run reads commands until the line is gone.
func (m *Module) run() {
	defer close(m.done)
	var got []byte
	buf := make([]byte, 4096)
	for {
		n, err := m.pty.Master.Read(buf)
		if err != nil {
			if errors.Is(err, os.ErrClosed) || !errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			continue
		}
		m.mu.Lock()
		if m.pty.Baud() != m.opts.Baud {
			m.foreign()
			m.mu.Unlock()
			continue
		}
		got = m.commandsIn(append(got, buf[:n]...))
		m.mu.Unlock()
	}
}

// foreign answers what came at a wrong rate: the module understood nothing, and neither does the host.
func (m *Module) foreign() {
	if m.stuck || m.opts.Mute {
		return
	}
	reply := m.packet(0x07, []byte{0x01})
	for i := range reply {
		reply[i] = reply[i]<<3 ^ 0xA6
	}
	m.write(reply)
}

// commandsIn obeys every whole command and returns what is left.
func (m *Module) commandsIn(b []byte) []byte {
	for len(b) >= 12 {
		n := 9 + int(binary.BigEndian.Uint16(b[7:]))
		if b[0] != 0xEF || b[1] != 0x01 || n > 300 {
			b = b[1:]
			continue
		}
		if len(b) < n {
			break
		}
		var s uint16
		for _, v := range b[6 : n-2] {
			s += uint16(v)
		}
		switch {
		case binary.BigEndian.Uint32(b[2:]) != m.opts.Address:
		case s != binary.BigEndian.Uint16(b[n-2:]):
			m.reply(0x01)
		case b[6] == 0x01:
			m.obey(b[9 : n-2])
		}
		b = b[n:]
	}
	return b
}
