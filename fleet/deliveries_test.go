package fleet

import (
	"slices"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

func TestDeliveries(t *testing.T) {
	d := newDeliveries()
	d.Open()
	p := packets.NewControlPacket(packets.Publish)
	d.announce(70)
	d.Put("o.3", p)
	d.Put("o.4", p) // nothing was announced: a birth or state
	d.announce(71)
	d.Put("i.5", p)                                           // a received message does not take the record
	d.Put("o.6", packets.NewControlPacket(packets.Subscribe)) // nor does a subscription
	d.Put("o.7", p)
	d.announce(72)
	d.announce(0) // its Publish failed before Put
	d.Put("o.8", p)
	for _, key := range []string{"i.3", "o.4", "o.6", "o.8", "o.99", "x", "o.", "o.-1", "o.70000", "o.3", "o.3"} {
		d.Del(key)
	}
	if got := d.take(); !slices.Equal(got, []uint64{70}) {
		t.Errorf("acknowledged %v, want [70] once", got)
	}
	select {
	case <-d.signal:
	default:
		t.Error("no signal")
	}
	d.Del("o.7")
	if got := d.take(); !slices.Equal(got, []uint64{71}) || d.take() != nil {
		t.Errorf("acknowledged %v, want [71] once", got)
	}
	if d.All() != nil || d.Get("o.7") != nil {
		t.Error("the store keeps packets")
	}
	d.Close()
	d.Close()
	select {
	case <-d.stopped:
	default:
		t.Error("Close is not seen")
	}
}
