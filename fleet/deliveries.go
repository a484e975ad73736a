package fleet

import (
	"strconv"
	"strings"
	"sync"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
)

// deliveries is the Store of one paho client. It stores no packets (the outbox does); it turns paho's calls into delivery
// signals: Put ties the message id to the flight that the publishing goroutine announced, Del says that it was
// acknowledged. See "What it relies on" in the package comment.
type deliveries struct {
	mu        sync.Mutex
	announced uint64            // flight that the next Put belongs to, 0 for none
	flights   map[uint16]uint64 // message id -> flight
	acked     []uint64          // at most the window
	closed    bool

	signal  chan struct{} // capacity 1: something was acknowledged
	stopped chan struct{} // closed by Close: the client's goroutines have ended
}

var _ mqtt.Store = (*deliveries)(nil)

func newDeliveries() *deliveries {
	return &deliveries{flights: map[uint16]uint64{}, signal: make(chan struct{}, 1), stopped: make(chan struct{})}
}

// announce names the flight (not 0) whose Publish comes next, in the same goroutine; 0 takes that back.
func (d *deliveries) announce(flight uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.announced = flight
}

// take returns the flights acknowledged since the last call, in the order of their PUBACKs.
func (d *deliveries) take() []uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.acked
	d.acked = nil
	return out
}

// Open implements mqtt.Store.
func (d *deliveries) Open() {}

// Put implements mqtt.Store.
func (d *deliveries) Put(key string, packet packets.ControlPacket) {
	mid, outbound := outboundID(key)
	if _, publish := packet.(*packets.PublishPacket); !outbound || !publish {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.announced != 0 {
		d.flights[mid] = d.announced
		d.announced = 0
	}
}

// Get implements mqtt.Store; nothing is kept.
func (d *deliveries) Get(string) packets.ControlPacket { return nil }

// All implements mqtt.Store; nothing is kept, so nothing is resumed.
func (d *deliveries) All() []string { return nil }

// Del implements mqtt.Store. It runs in paho's reader and does not block.
func (d *deliveries) Del(key string) {
	mid, outbound := outboundID(key)
	if !outbound {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	flight, tracked := d.flights[mid]
	if !tracked {
		return
	}
	delete(d.flights, mid)
	d.acked = append(d.acked, flight)
	select {
	case d.signal <- struct{}{}:
	default:
	}
}

// Close implements mqtt.Store.
func (d *deliveries) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.closed = true
		close(d.stopped)
	}
}

// Reset implements mqtt.Store. paho calls it once after a clean connect, before anything was published.
func (d *deliveries) Reset() {}

func outboundID(key string) (uint16, bool) {
	digits, outbound := strings.CutPrefix(key, "o.")
	if !outbound {
		return 0, false
	}
	mid, err := strconv.ParseUint(digits, 10, 16)
	return uint16(mid), err == nil
}
