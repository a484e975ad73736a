package fleet

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

var (
	errLost       = errors.New("connection to the broker is lost")
	errAckTimeout = errors.New("broker does not acknowledge")
	errRedeliver  = errors.New("commands were left with the broker for lack of room; fetching them again")
)

// connection is one TLS connection with its own paho client. Run's goroutine owns it and is the only one that publishes.
type connection struct {
	link    *Link
	session uint64
	conn    *guardedConn
	client  mqtt.Client
	store   *deliveries
	lost    chan error    // capacity 1
	ended   chan struct{} // closed when the client ended by losing its connection
	pump    pump
}

// connect dials, takes a session number and performs the MQTT handshake.
func (l *Link) connect(ctx context.Context) (*connection, error) {
	if err := CheckValidity(l.tls, l.deps.Now()); err != nil {
		return nil, err
	}
	conn, err := l.dial(ctx)
	if err != nil {
		return nil, err
	}
	session, err := l.deps.NextSession(ctx)
	if err != nil {
		conn.abort(err)
		return nil, fmt.Errorf("cannot start a session: %w", err)
	}
	c := &connection{
		link: l, session: session, conn: conn, store: newDeliveries(),
		lost: make(chan error, 1), ended: make(chan struct{}),
	}
	c.pump = pump{link: l, conn: c}
	c.client = mqtt.NewClient(c.options())
	if err := c.handshake(ctx); err != nil {
		l.poisoned(conn)
		return nil, explainDial(err, l.addr, l.deps.Now())
	}
	return c, nil
}

// dial opens TCP and TLS. It takes no proxy from the environment.
func (l *Link) dial(ctx context.Context) (*guardedConn, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.ConnectTimeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.addr)
	if err != nil {
		return nil, explainDial(err, l.addr, l.deps.Now())
	}
	secure := tls.Client(raw, l.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // the handshake error is the one to report
		return nil, explainDial(err, l.addr, l.deps.Now())
	}
	return &guardedConn{Conn: secure, raw: raw, timeout: l.cfg.WriteTimeout}, nil
}

func (c *connection) options() *mqtt.ClientOptions {
	l := c.link
	will, _ := json.Marshal(State{Online: false, Session: c.session}) // two scalars always encode
	o := mqtt.NewClientOptions().
		SetProtocolVersion(4).
		SetClientID(l.topics.ClientID()).
		SetCleanSession(l.discard).
		SetAutoReconnect(false).
		SetConnectRetry(false).
		SetOrderMatters(true).
		SetAutoAckDisabled(true).
		SetKeepAlive(l.cfg.KeepAlive).
		SetPingTimeout(l.cfg.WriteTimeout).
		SetConnectTimeout(l.cfg.ConnectTimeout).
		SetWriteTimeout(l.cfg.WriteTimeout).
		SetStore(c.store).
		SetBinaryWill(l.topics.State(), will, 1, true).
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { l.inbox.offer(m) }).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) {
			c.lost <- err // sent at most once per client
			close(c.ended)
		}).
		SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) { return c.conn, nil })
	o.Servers = []*url.URL{{Scheme: "tls", Host: l.addr}} // a name only: the connection is open already
	return o
}

// poisoned makes the next connection start a clean session when this one was ended by a packet that no session of this
// device can take: the broker would deliver it for ever. Commands that wait there are lost with it; their senders get no
// answer and send again.
func (l *Link) poisoned(conn *guardedConn) {
	if errors.Is(conn.why(), errOversize) {
		l.discard = true // until a connection came up
		l.log.Error("broker holds a packet that is too large; discarding its session for this device", "limit_bytes", maxPacketBytes)
	}
}

func (c *connection) handshake(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.conn.abort(ctx.Err()) })
	defer stop()
	token := c.client.Connect()
	<-token.Done() // paho sets ConnectTimeout as the deadline of the connection
	if err := token.Error(); err != nil {
		c.conn.abort(err)
		return err
	}
	return nil
}

// hello subscribes to commands and then publishes birth and state: who sees the device online can command it.
func (c *connection) hello(ctx context.Context) error {
	if err := c.subscribe(ctx); err != nil {
		return err
	}
	l := c.link
	birth := Birth{
		Version: wireVersion, Tenant: l.cfg.Tenant, Device: l.cfg.Device, Session: c.session,
		Software: l.cfg.Software, Started: l.cfg.Started.UTC(), Models: l.deps.Models(),
	}
	if err := c.announce(ctx, l.topics.Birth(), birth); err != nil {
		return err
	}
	return c.announce(ctx, l.topics.State(), State{Online: true, Session: c.session})
}

func (c *connection) subscribe(ctx context.Context) error {
	topic := c.link.topics.Command()
	token := c.client.Subscribe(topic, 1, nil)
	if err := c.await(ctx, token, c.link.cfg.ConnectTimeout); err != nil {
		return fmt.Errorf("cannot subscribe to commands: %w", err)
	}
	granted, ok := token.(*mqtt.SubscribeToken)
	if !ok || granted.Result()[topic] != 1 {
		return errors.New("cannot subscribe to commands: the broker does not grant QoS 1; check its ACL for this certificate")
	}
	return nil
}

// announce publishes v retained and waits for the PUBACK.
func (c *connection) announce(ctx context.Context, topic string, v any) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("cannot encode %s: %w", topic, err)
	}
	if err := c.await(ctx, c.client.Publish(topic, 1, true, payload), c.link.cfg.ConnectTimeout); err != nil {
		return fmt.Errorf("cannot publish %s: %w", topic, err)
	}
	return nil
}

func (c *connection) await(ctx context.Context, token mqtt.Token, limit time.Duration) error {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-token.Done():
		return token.Error()
	case <-c.ended:
		return c.lostError()
	case <-t.C:
		return errAckTimeout
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lostError returns why the connection was lost; call it after ended is closed.
func (c *connection) lostError() error {
	select {
	case err := <-c.lost:
		c.lost <- err // for whoever asks again
		return fmt.Errorf("%w: %w", errLost, err)
	default:
		return errLost
	}
}

// abort cuts the connection so that the broker publishes the will.
func (c *connection) abort(cause error) { c.conn.abort(cause) }

// goodbye says offline in order and disconnects. The PUBACK of the farewell follows those of all records before it, so
// what is acknowledged until then is deleted too.
func (c *connection) goodbye() {
	ctx, cancel := context.WithTimeout(context.Background(), c.link.cfg.CloseTimeout)
	defer cancel()
	if err := c.announce(ctx, c.link.topics.State(), State{Online: false, Session: c.session}); err != nil {
		c.link.log.Warn("cannot say offline; the broker publishes the will", "error", err)
		c.abort(err)
		return
	}
	c.pump.settle()
	c.client.Disconnect(uint(c.link.cfg.CloseTimeout.Milliseconds()))
}

// finish waits until the client's goroutines have ended.
func (c *connection) finish() {
	t := time.NewTimer(c.link.cfg.WriteTimeout + c.link.cfg.CloseTimeout)
	defer t.Stop()
	select {
	case <-c.ended:
	case <-c.store.stopped:
	case <-t.C:
		c.conn.abort(errLost)
		c.client.Disconnect(uint(c.link.cfg.CloseTimeout.Milliseconds()))
		c.link.log.Error("MQTT client did not end in time")
	}
}
