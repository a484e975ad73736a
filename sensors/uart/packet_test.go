package uart

import (
	"bytes"
	"testing"
)

// Packets as the data sheets print them.
var printed = map[string]struct {
	bytes []byte
	kind  Kind
	data  []byte
}{
	"take a picture":       {[]byte{0xEF, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, 0x00, 0x03, 0x01, 0x00, 0x05}, Command, []byte{0x01}},
	"send the picture":     {[]byte{0xEF, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, 0x00, 0x03, 0x0A, 0x00, 0x0E}, Command, []byte{0x0A}},
	"verify the password":  {[]byte{0xEF, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, 0x00, 0x07, 0x13, 0, 0, 0, 0, 0x00, 0x1B}, Command, []byte{0x13, 0, 0, 0, 0}},
	"done":                 {[]byte{0xEF, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0x07, 0x00, 0x03, 0x00, 0x00, 0x0A}, Ack, []byte{0x00}},
	"no finger":            {[]byte{0xEF, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0x07, 0x00, 0x03, 0x02, 0x00, 0x0C}, Ack, []byte{0x02}},
	"read what it says":    {[]byte{0xEF, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, 0x00, 0x03, 0x0F, 0x00, 0x13}, Command, []byte{0x0F}},
	"set 57,600 baud":      {[]byte{0xEF, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, 0x00, 0x05, 0x0E, 0x04, 0x06, 0x00, 0x1E}, Command, []byte{0x0E, 0x04, 0x06}},
	"the password is not":  {[]byte{0xEF, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0x07, 0x00, 0x03, 0x13, 0x00, 0x1D}, Ack, []byte{0x13}},
	"the end without data": {[]byte{0xEF, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0x08, 0x00, 0x02, 0x00, 0x0A}, End, nil},
}

func TestPacketsAreThoseOfTheDataSheets(t *testing.T) {
	for name, c := range printed {
		if got := (Packet{AnyAddress, c.kind, c.data}).Append(nil); !bytes.Equal(got, c.bytes) {
			t.Errorf("%s: % x, want % x", name, got, c.bytes)
		}
		d := Decoder{Address: AnyAddress}
		for i, b := range c.bytes { // byte by byte: not a packet too early
			d.Feed([]byte{b})
			p, ok := d.Next()
			if ok != (i == len(c.bytes)-1) || ok && (p.Kind != c.kind || !bytes.Equal(p.Content, c.data)) {
				t.Errorf("%s: after %d bytes %v, %+v", name, i+1, ok, p)
			}
		}
		if d.Counts != [damages]uint64{} {
			t.Errorf("%s: damage %v", name, d.Counts)
		}
	}
}

// TestDecoderFindsThePacketBehindDamage: whatever came before, the next whole packet is found, and what was wrong is named.
func TestDecoderFindsThePacketBehindDamage(t *testing.T) {
	good := Packet{AnyAddress, Data, []byte("a piece of a print")}.Append(nil)
	alter := func(i int, v byte) []byte {
		b := bytes.Clone(good)
		b[i] ^= v
		return b
	}
	for name, c := range map[string]struct {
		before []byte
		want   Damage
	}{
		"noise":               {[]byte{1, 2, 3, 0xEF, 4}, Noise},
		"half a header":       {[]byte{0xEF}, Noise},
		"flipped bit":         {alter(12, 0x04), BadChecksum},
		"flipped checksum":    {alter(len(good)-1, 0x80), BadChecksum},
		"endless length":      {alter(7, 0x7F), BadLength},
		"length of nothing":   {append(bytes.Clone(good[:7]), 0, 1), BadLength},
		"unknown packet":      {alter(6, 0x40), BadKind},
		"another module":      {alter(3, 0x01), BadAddress},
		"cut off in the data": {good[:14], BadChecksum}, // it takes the packet behind for its own rest
	} {
		d := Decoder{Address: AnyAddress}
		d.Feed(c.before)
		d.Feed(good)
		d.Feed(good) // a false length is only known to be false when enough has come
		p, ok := d.Next()
		if !ok || string(p.Content) != "a piece of a print" {
			t.Errorf("%s: no packet behind it: %+v", name, p)
		}
		if d.Counts[c.want] != 1 {
			t.Errorf("%s: counted %v, want one %s", name, d.Counts, c.want)
		}
	}
}

func TestDecoderFlushCountsWhatWasCutOff(t *testing.T) {
	d := Decoder{Address: AnyAddress}
	good := Packet{AnyAddress, Ack, []byte{0}}.Append(nil)
	d.Feed(good[:7])
	if _, ok := d.Next(); ok || !d.Flush() || d.Counts[Truncated] != 1 {
		t.Errorf("a packet cut off: %v", d.Counts)
	}
	if d.Feed(good); d.Flush() != true || d.Flush() {
		t.Error("flush says something of nothing")
	}
	d.Feed(good)
	if _, ok := d.Next(); !ok {
		t.Error("nothing is decoded after Flush")
	}
}

func TestUnpack(t *testing.T) {
	got := make([]byte, 4)
	Unpack(got, []byte{0x0F, 0xA5})
	if !bytes.Equal(got, []byte{0, 255, 170, 85}) {
		t.Errorf("unpacked %v", got)
	}
}

// FuzzDecoder: no input may panic, hang or grow the buffer, and a packet behind it, twice, is found once at least.
func FuzzDecoder(f *testing.F) {
	for _, c := range printed {
		f.Add(c.bytes, uint8(3))
		f.Add(c.bytes[:len(c.bytes)-1], uint8(1))
	}
	picture := Packet{AnyAddress, Data, bytes.Repeat([]byte{0xEF, 0x01}, 64)}.Append(nil) // headers within the data
	f.Add(picture, uint8(7))
	f.Add(append(bytes.Clone(picture[20:]), picture...), uint8(64))
	f.Fuzz(func(t *testing.T, line []byte, step uint8) {
		d := Decoder{Address: AnyAddress}
		feed := func(b []byte) (n int) {
			for len(b) > 0 {
				k := min(len(b), int(step)+1)
				d.Feed(b[:k])
				b = b[k:]
				for p, ok := d.Next(); ok; p, ok = d.Next() {
					again := p.Append(nil)
					q := Decoder{Address: AnyAddress}
					q.Feed(again)
					if r, ok := q.Next(); !ok || r.Kind != p.Kind || !bytes.Equal(r.Content, p.Content) {
						t.Fatalf("%+v does not survive: %+v", p, r)
					}
					n++
				}
				if held := len(d.buf) - d.start; held > maxPacket+256 {
					t.Fatalf("%d bytes are held", held)
				}
			}
			return n
		}
		feed(line)
		marker := Packet{AnyAddress, End, make([]byte, MaxContent)}.Append(nil)
		if feed(marker)+feed(marker) == 0 {
			t.Fatal("no packet is found behind it")
		}
	})
}
