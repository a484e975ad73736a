package fleet

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

func encode(t testing.TB, p packets.ControlPacket) []byte {
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func publishPacket(payload int, qos byte) *packets.PublishPacket {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.Qos, p.MessageID, p.TopicName, p.Payload = qos, 1, "t", make([]byte, payload)
	return p
}

func TestFrameGuard(t *testing.T) {
	suback := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
	suback.ReturnCodes = []byte{1}
	hostile := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
	hostile.ReturnCodes = []byte{1, 1} // makes paho index out of range
	for name, c := range map[string]struct {
		bytes []byte
		want  error
	}{
		"connack":              {encode(t, packets.NewControlPacket(packets.Connack)), nil},
		"puback":               {encode(t, packets.NewControlPacket(packets.Puback)), nil},
		"pingresp":             {encode(t, packets.NewControlPacket(packets.Pingresp)), nil},
		"suback":               {encode(t, suback), nil},
		"empty publish":        {encode(t, publishPacket(0, 1)), nil},
		"largest publish":      {encode(t, publishPacket(maxPacketBytes-5, 1)), nil},
		"suback of two topics": {encode(t, hostile), errProtocol},
		"publish too large":    {encode(t, publishPacket(maxPacketBytes-4, 1)), errOversize},
		"QoS 2":                {encode(t, publishPacket(1, 2)), errProtocol},
		"QoS 3":                {encode(t, publishPacket(1, 3)), errProtocol},
		"length of 256 MiB":    {[]byte{0x32, 0xff, 0xff, 0xff, 0x7f}, errOversize},
		"length of five bytes": {[]byte{0x32, 0xff, 0xff, 0xff, 0xff, 0x01}, errProtocol},
		"pubrec":               {encode(t, packets.NewControlPacket(packets.Pubrec)), errProtocol},
		"connect":              {[]byte{0x10, 0x00}, errProtocol},
		"type 0":               {[]byte{0x00, 0x00}, errProtocol},
		"type 15":              {[]byte{0xf0, 0x00}, errProtocol},
		"long connack":         {[]byte{0x20, 0x03, 0, 0, 0}, errProtocol},
	} {
		two := append(encode(t, publishPacket(3, 0)), c.bytes...) // also behind another packet
		for _, b := range [][]byte{c.bytes, two} {
			var whole, single frameGuard
			if err := whole.scan(b); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
			var err error
			for i := 0; i < len(b) && err == nil; i++ {
				err = single.scan(b[i : i+1])
			}
			if !errors.Is(err, c.want) {
				t.Errorf("%s byte by byte: %v, want %v", name, err, c.want)
			}
		}
	}
}

// What the guard lets through, paho can read without trouble, however it is cut into pieces.
func FuzzFrameGuard(f *testing.F) {
	f.Add(encode(f, publishPacket(10, 1)), 3)
	f.Add(encode(f, packets.NewControlPacket(packets.Connack)), 1)
	f.Add([]byte{0x90, 0x04, 0, 1, 1, 1}, 2)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		var whole, pieces frameGuard
		want := whole.scan(data)
		cut = min(max(cut, 0), len(data))
		got := pieces.scan(data[:cut])
		if got == nil {
			got = pieces.scan(data[cut:])
		}
		if (got == nil) != (want == nil) {
			t.Fatalf("cut at %d: %v, whole: %v", cut, got, want)
		}
		if want != nil {
			return
		}
		for r := bytes.NewReader(data); ; {
			p, err := packets.ReadPacket(r)
			if err != nil {
				return
			}
			if s, ok := p.(*packets.SubackPacket); ok && len(s.ReturnCodes) != 1 {
				t.Fatalf("SUBACK with %d codes came through", len(s.ReturnCodes))
			}
		}
	})
}

func TestGuardedConn(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	g := &guardedConn{Conn: ours, raw: ours, timeout: 20 * time.Millisecond}
	began := time.Now()
	if _, err := g.Write([]byte("nobody reads")); err == nil || time.Since(began) > 5*time.Second {
		t.Errorf("a stuck write ended with %v after %v", err, time.Since(began))
	}
	cause := errors.New("cut on purpose")
	read := make(chan error, 1)
	go func() {
		_, err := g.Read(make([]byte, 1))
		read <- err
	}()
	g.abort(cause)
	g.abort(io.EOF) // the first cause stays
	if err := <-read; !errors.Is(err, cause) && !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("read ended with %v", err)
	}
	if _, err := g.Read(make([]byte, 1)); !errors.Is(err, cause) {
		t.Errorf("read after the cut: %v", err)
	}
	if _, err := g.Write([]byte{1}); !errors.Is(err, cause) {
		t.Errorf("write after the cut: %v", err)
	}
}
