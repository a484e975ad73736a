package fleettest

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"vigil/fleet"
)

// maxCaptureBytes bounds what a Broker remembers of its traffic.
const maxCaptureBytes = 64 << 20

// Broker is an MQTT broker in this process with mutual TLS 1.3. A certificate's device may publish only below its "up"
// and subscribe only below its "down"; the management certificate of a tenant does the mirror. It keeps retained
// messages and sessions only while it runs, and a record of everything that was published (Captured).
type Broker struct {
	tls    *tls.Config
	log    *slog.Logger
	record *recorder

	mu     sync.Mutex
	addr   string
	server *mqtt.Server
}

// Capture is one message that a client published, or a will.
type Capture struct {
	Client  string // MQTT client id
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool
	Will    bool
}

// NewBroker starts a broker on a free port of 127.0.0.1. log may be nil.
func NewBroker(p *PKI, log *slog.Logger) (*Broker, error) {
	cfg, err := p.ServerTLS()
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	b := &Broker{tls: cfg, log: log, addr: "127.0.0.1:0", record: &recorder{}}
	return b, b.Restart()
}

// Addr returns "127.0.0.1:port"; it stays the same over restarts.
func (b *Broker) Addr() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.addr
}

// Captured returns copies of what was published so far, over all restarts, in order of arrival; at most 64 MiB of it.
func (b *Broker) Captured() []Capture { return b.record.all() }

// Restart starts the broker again after Kill. It returns an error when it is running.
func (b *Broker) Restart() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server != nil {
		return errors.New("cannot start the broker: it is running")
	}
	listener, err := net.Listen("tcp", b.addr)
	if err != nil {
		return fmt.Errorf("cannot start the broker: %w", err)
	}
	server := mqtt.New(&mqtt.Options{Logger: b.log})
	if err := server.AddHook(&certHook{record: b.record}, nil); err != nil {
		_ = listener.Close() // the first error is the one to report
		return fmt.Errorf("cannot start the broker: %w", err)
	}
	if err := server.AddListener(listeners.NewNet("tls", tls.NewListener(listener, b.tls))); err != nil {
		_ = listener.Close()
		return fmt.Errorf("cannot start the broker: %w", err)
	}
	if err := server.Serve(); err != nil {
		_ = listener.Close()
		return fmt.Errorf("cannot start the broker: %w", err)
	}
	b.addr, b.server = listener.Addr().String(), server
	return nil
}

// Kill stops the broker; its connections are cut and its sessions and retained messages are gone.
func (b *Broker) Kill() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server == nil {
		return nil
	}
	err := b.server.Close()
	b.server = nil
	return err
}

// Close is Kill.
func (b *Broker) Close() error { return b.Kill() }

// certHook authenticates by certificate, checks the ACL and records what is published.
type certHook struct {
	mqtt.HookBase
	record *recorder
}

// ID implements mqtt.Hook.
func (h *certHook) ID() string { return "certificate" }

// Provides implements mqtt.Hook.
func (h *certHook) Provides(b byte) bool {
	return bytes.IndexByte([]byte{mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnPublish, mqtt.OnWillSent}, b) >= 0
}

// OnConnectAuthenticate ties the client id to the certificate, so that no device can take another's session over.
func (h *certHook) OnConnectAuthenticate(cl *mqtt.Client, _ packets.Packet) bool {
	who, ok := identify(cl)
	if !ok {
		return false
	}
	if who.management() {
		return true
	}
	topics, err := fleet.NewTopics(who.tenant, who.name)
	return err == nil && cl.ID == topics.ClientID()
}

// OnACLCheck implements mqtt.Hook; topic may be a filter when write is false.
func (h *certHook) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	who, ok := identify(cl)
	return ok && who.may(topic, write)
}

// OnPublish implements mqtt.Hook. It runs before the PUBACK.
func (h *certHook) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	h.record.add(cl, pk, false)
	return pk, nil
}

// OnWillSent implements mqtt.Hook.
func (h *certHook) OnWillSent(cl *mqtt.Client, pk packets.Packet) { h.record.add(cl, pk, true) }

type identity struct{ tenant, name string }

func identify(cl *mqtt.Client) (identity, bool) {
	conn, ok := cl.Net.Conn.(*tls.Conn)
	if !ok {
		return identity{}, false
	}
	certs := conn.ConnectionState().PeerCertificates
	if len(certs) == 0 || len(certs[0].Subject.OrganizationalUnit) != 1 {
		return identity{}, false
	}
	return identity{tenant: certs[0].Subject.OrganizationalUnit[0], name: certs[0].Subject.CommonName}, true
}

func (i identity) management() bool { return i.name == ManagementName }

func (i identity) may(topic string, write bool) bool {
	parts := strings.Split(topic, "/")
	if len(parts) < 6 || parts[0] != "vigil" || parts[1] != "1" || parts[2] != i.tenant {
		return false
	}
	device, tree := parts[3], parts[4]
	if i.management() {
		return (write && tree == "down" && device != "+") || (!write && tree == "up")
	}
	return device == i.name && ((write && tree == "up") || (!write && tree == "down"))
}

// recorder remembers messages up to maxCaptureBytes.
type recorder struct {
	mu    sync.Mutex
	list  []Capture
	bytes int
}

func (r *recorder) add(cl *mqtt.Client, pk packets.Packet, will bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bytes+len(pk.Payload) > maxCaptureBytes {
		return
	}
	r.bytes += len(pk.Payload) + len(pk.TopicName)
	r.list = append(r.list, Capture{
		Client: cl.ID, Topic: pk.TopicName, Payload: bytes.Clone(pk.Payload),
		QoS: pk.FixedHeader.Qos, Retain: pk.FixedHeader.Retain, Will: will,
	})
}

func (r *recorder) all() []Capture {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Capture(nil), r.list...)
}
