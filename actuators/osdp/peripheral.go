// Package osdp is a peripheral (PD) of the Open Supervised Device Protocol, SIA OSDP 2.2 (IEC 60839-11-5), at an RS-485 line:
// to a door's control panel the appliance is a card reader, and a grant is a card.
//
// Promises: with a key, nothing is answered outside of a secure channel but its setting up, the identification, the
// capabilities, and polls, which get no card; the default key SCBK-D is never taken. In a channel every message is authenticated and chained to the one
// before: what is altered, replayed, out of order, cut off or of another key closes the channel and moves nothing. A command
// that is repeated with its sequence number, byte for byte, gets the same reply again and is not executed again. Cards wait
// for the panel's poll, up to maxCards; a card that is not fetched within CardLife is dropped and Actuate says so.
//
// Handle is the whole protocol as a function of bytes and time; Serve is the loop around it. A Peripheral owns its port.
// It does not set keys or addresses over the line (KEYSET, COMSET are refused): the configuration does.
package osdp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync"
	"time"
)

// Commands and replies.
const (
	cmdPoll, cmdID, cmdCap, cmdLStat            = 0x60, 0x61, 0x62, 0x64
	cmdOut, cmdLED, cmdBuzzer, cmdText          = 0x68, 0x69, 0x6A, 0x6B
	cmdChallenge, cmdServer, cmdMaxReply        = 0x76, 0x77, 0x7B
	replyAck, replyNak, replyID, replyCap       = 0x40, 0x41, 0x45, 0x46
	replyLStat, replyRaw, replyClient, replyMAC = 0x48, 0x50, 0x76, 0x78
)

// Reasons of a NAK.
const (
	nakChecksum  = 0x01
	nakLength    = 0x02
	nakCommand   = 0x03
	nakSequence  = 0x04
	nakBlock     = 0x05
	nakEncrypted = 0x06
)

// SessionLife is how long a silent panel keeps its secure channel, and its sequence (clause 5.7: 8 seconds).
const SessionLife = 8 * time.Second

// maxCards bounds the cards that wait for the panel.
const maxCards = 4

// Identity is what the peripheral says of itself.
type Identity struct {
	Vendor         [3]byte
	Model, Version byte
	Serial         [4]byte
	Firmware       [3]byte
}

// Stats count what came over the line.
type Stats struct {
	Frames, Refused, Repeated uint64
	BadChecksum, BadMAC       uint64
	Foreign                   uint64 // for other peripherals
	Sessions                  uint64 // secure channels that were opened
	Secure                    bool   // one is open now
}

type card struct {
	bits  int
	value uint64
	sent  chan struct{} // closed when the panel has acknowledged it by its next command
}

// Peripheral is the state of one PD. Handle is safe for concurrent use.
type Peripheral struct {
	address  byte
	identity Identity
	key      *[KeyBytes]byte // nil: speaks in clear

	mu       sync.Mutex
	channel  *channel // nil: none
	seq      byte     // of the latest command
	fresh    bool     // nothing came yet, or the panel was silent for too long
	last     time.Time
	command  []byte // the latest, for repeats
	reply    []byte
	cards    []*card
	inFlight *card // sent with the latest reply
	stats    Stats
}

// NewPeripheral makes one. A nil key speaks in clear.
func NewPeripheral(address byte, id Identity, key *[KeyBytes]byte) *Peripheral {
	return &Peripheral{address: address, identity: id, key: key, fresh: true}
}

// Stats is a snapshot.
func (p *Peripheral) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Secure = p.channel != nil && p.channel.open
	return s
}

// Handle takes what came over the line up to now and returns how many bytes of it are done with, and the reply to send, if
// any. It never fails: what is no frame is passed over.
func (p *Peripheral) Handle(line []byte, now time.Time) (n int, reply []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	start := bytes.IndexByte(line, som)
	if start < 0 {
		return len(line), nil
	}
	f, size, err := decode(line[start:])
	switch {
	case errors.Is(err, errMore):
		return start, nil
	case size == 1:
		return start + 1, nil
	case errors.Is(err, errChecksum):
		p.stats.BadChecksum++
		return start + 1, nil // its length may be wrong, too: no reply, the panel asks again
	case f.reply || f.address != p.address && f.address != broadcast:
		p.stats.Foreign++
		return start + size, nil
	}
	p.stats.Frames++
	whole := line[start : start+size]
	if err != nil {
		return start + size, p.refuse(&f, nakLength)
	}
	return start + size, p.frame(&f, whole, now)
}

// frame answers a frame that came through whole.
func (p *Peripheral) frame(f *frame, whole []byte, now time.Time) []byte {
	if now.Sub(p.last) > SessionLife {
		p.channel, p.fresh = nil, true
	}
	p.last = now
	if f.seq != 0 && !p.fresh && f.seq == p.seq {
		if bytes.Equal(whole, p.command) {
			p.stats.Repeated++
			return p.reply
		}
		return p.refuse(f, nakSequence)
	}
	if f.seq != 0 && (p.fresh || f.seq != p.seq%3+1) {
		return p.refuse(f, nakSequence)
	}
	if f.seq == 0 { // the panel begins anew
		p.channel, p.inFlight = nil, nil
	}
	data, secured, nak := p.unwrap(f)
	if nak != 0 {
		return p.refuse(f, nak)
	}
	p.seq, p.fresh = f.seq, false
	p.delivered()
	p.command = append(p.command[:0], whole...)
	p.reply = p.execute(f, data, secured)
	return p.reply
}

// refuse answers with a NAK in clear and closes the channel: one that is out of step cannot go on.
func (p *Peripheral) refuse(f *frame, reason byte) []byte {
	p.stats.Refused++
	p.channel, p.inFlight = nil, nil
	return p.answer(f, replyNak, []byte{reason}, false)
}

// delivered settles the card of the latest reply: the panel went on, so it has it.
func (p *Peripheral) delivered() {
	if p.inFlight == nil {
		return
	}
	if len(p.cards) > 0 && p.cards[0] == p.inFlight {
		p.cards = p.cards[1:]
	}
	close(p.inFlight.sent)
	p.inFlight = nil
}

// unwrap checks the frame's security and returns its data in clear; nak is why it is refused.
func (p *Peripheral) unwrap(f *frame) (data []byte, secured bool, nak byte) {
	switch {
	case f.scs == scs15 || f.scs == scs17:
		c := p.channel
		if c == nil || !c.open {
			return nil, false, nakEncrypted
		}
		iv := c.iv()
		if !c.verify(f.covered, f.mac) {
			p.stats.BadMAC++
			return nil, false, nakEncrypted
		}
		if f.scs == scs15 {
			if len(f.data) > 0 { // data in a channel is encrypted
				return nil, false, nakEncrypted
			}
			return nil, true, 0
		}
		data, err := c.decrypt(f.data, iv)
		if err != nil {
			return nil, false, nakEncrypted
		}
		return data, true, 0
	case f.scs == scs11 && f.code == cmdChallenge, f.scs == scs13 && f.code == cmdServer:
		return f.data, false, 0
	case f.scs != 0:
		return nil, false, nakBlock
	case p.channel != nil && p.channel.open, f.code == cmdChallenge, f.code == cmdServer:
		return nil, false, nakEncrypted // in clear amid a channel
	case p.key != nil && f.code != cmdID && f.code != cmdCap && f.code != cmdPoll:
		return nil, false, nakEncrypted
	}
	return f.data, false, 0
}

// execute does a command and returns the reply's bytes.
func (p *Peripheral) execute(f *frame, data []byte, secured bool) []byte {
	switch f.code {
	case cmdPoll:
		return p.poll(f, secured)
	case cmdID:
		id := p.identity
		out := append(id.Vendor[:len(id.Vendor):len(id.Vendor)], id.Model, id.Version)
		return p.answer(f, replyID, append(append(out, id.Serial[:]...), id.Firmware[:]...), secured)
	case cmdCap:
		return p.answer(f, replyCap, p.capabilities(), secured)
	case cmdLStat:
		return p.answer(f, replyLStat, []byte{0, 0}, secured)
	case cmdOut, cmdLED, cmdBuzzer, cmdText, cmdMaxReply: // taken and shown nowhere: there is no light, no sound, no text
		return p.answer(f, replyAck, nil, secured)
	case cmdChallenge:
		return p.challenge(f, data)
	case cmdServer:
		return p.open(f, data)
	}
	p.stats.Refused++
	return p.answer(f, replyNak, []byte{nakCommand}, secured)
}

// poll hands the oldest card out, if the line is as safe as it must be.
func (p *Peripheral) poll(f *frame, secured bool) []byte {
	if len(p.cards) == 0 || p.key != nil && !secured {
		return p.answer(f, replyAck, nil, secured)
	}
	c := p.cards[0]
	p.inFlight = c
	n := (c.bits + 7) / 8
	raw := binary.BigEndian.AppendUint64(nil, c.value<<(64-c.bits))[:n]
	return p.answer(f, replyRaw, append([]byte{0, 1, byte(c.bits), byte(c.bits >> 8)}, raw...), secured) // reader 0, Wiegand
}

// capabilities are function code, compliance and number of each (annex B).
func (p *Peripheral) capabilities() []byte {
	aes := byte(0)
	if p.key != nil {
		aes = 1
	}
	return []byte{
		3, 1, 0, // card data as an array of bits
		8, 1, 0, // CRC
		9, aes, 0, // AES-128; SCBK-D is not
		10, byte(maxFrame & 0xFF), byte(maxFrame >> 8),
		13, 1, 1, // readers: one
		16, 2, 2, // of version 2.2
	}
}

// challenge begins a channel.
func (p *Peripheral) challenge(f *frame, data []byte) []byte {
	if p.key == nil || len(data) != 8 || len(f.block) != 1 || f.block[0] != 1 { // 0 would be SCBK-D
		return p.refuse(f, nakBlock)
	}
	p.channel = newChannel(*p.key, data)
	client, id := p.channel.client(), p.identity
	out := append([]byte{id.Vendor[0], id.Vendor[1], id.Model, id.Version}, id.Serial[:]...)
	out = append(append(out, p.channel.randB[:]...), client[:]...)
	return p.plain(f, scs12, []byte{1}, replyClient, out)
}

// open completes it.
func (p *Peripheral) open(f *frame, data []byte) []byte {
	if p.channel == nil || p.channel.open || len(data) != 16 {
		return p.refuse(f, nakBlock)
	}
	if !p.channel.accept(data) {
		p.stats.Refused++
		p.channel = nil
		return p.plain(f, scs14, []byte{0xFF}, replyMAC, make([]byte, 16))
	}
	p.stats.Sessions++
	return p.plain(f, scs14, []byte{1}, replyMAC, bytes.Clone(p.channel.last[:]))
}

func (p *Peripheral) plain(f *frame, scs byte, block []byte, code byte, data []byte) []byte {
	r := frame{address: p.address, reply: true, seq: f.seq, crc: f.crc, scs: scs, block: block, code: code, data: data}
	return r.encode(nil, nil)
}

// answer makes a reply, in the channel where secured. A broadcast gets it under our own address.
func (p *Peripheral) answer(f *frame, code byte, data []byte, secured bool) []byte {
	r := frame{address: p.address, reply: true, seq: f.seq, crc: f.crc, code: code, data: data}
	if !secured {
		return r.encode(nil, nil)
	}
	r.scs = scs16
	if len(data) > 0 {
		r.scs, r.data = scs18, p.channel.encrypt(data)
	}
	return r.encode(nil, p.channel.sign)
}
