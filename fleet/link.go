package fleet

import (
	"context"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"time"
)

// Sentinels of the link and of an Executor.
var (
	// ErrRunning is returned by Run when it was called before; a Link runs once.
	ErrRunning = errors.New("cannot run the fleet link twice")
	// ErrConflict is returned by an Executor when the id of the command is in the ledger with another Command.Digest.
	ErrConflict = errors.New("command id was used for another command")
	// ErrUnknownCommand is returned by an Executor for a command it does not carry out.
	ErrUnknownCommand = errors.New("unknown command")
)

// Record is one entry of the outbox. Payload is in clear; the link seals it.
type Record struct {
	ID      uint64 // ascending, not 0; under one Config.Origin only a gap marker may use the id of another record again
	Class   string // a name; ClassResult and ClassGap have topics of their own
	Payload []byte
}

// DamagedRecord is the error of OutboxNext for a record that is there and cannot be read.
type DamagedRecord struct {
	ID  uint64
	Err error // may be nil
}

// Error implements error.
func (d *DamagedRecord) Error() string { return fmt.Sprintf("cannot read record %d: %v", d.ID, d.Err) }

// Unwrap returns the cause.
func (d *DamagedRecord) Unwrap() error { return d.Err }

// Outbox is the durable queue of what the fleet must learn.
type Outbox interface {
	// OutboxNext returns up to max records with ids above after, in ascending order, without waiting. A record that cannot
	// be read ends the list early; when it is the first, the error is a *DamagedRecord. It is then reported as a gap.
	OutboxNext(after uint64, max int) ([]Record, error)
	// OutboxDelete removes acknowledged records durably. Ids that are gone already are no error. The link looks at a record
	// before it deletes it: a gap marker that took its place meanwhile stays.
	OutboxDelete(ids ...uint64) error
	// OutboxChanged returns a channel that receives, or is closed, when records were added since the last receive.
	OutboxChanged() <-chan struct{}
}

// Executor carries commands out, effectively once.
type Executor interface {
	// Execute carries c out and records c.ID, c.Digest and the answer in the transaction of the effect, until c.Expires
	// plus ClockLeeway at least. If c.ID is recorded already it returns the recorded answer and repeated = true, or
	// ErrConflict if the digest differs. What the command finds wrong ("no such subject") is an answer, not an error; an
	// error (other than ErrConflict and ErrUnknownCommand) means that nothing was done and the command may come again.
	Execute(ctx context.Context, c Command) (answer json.RawMessage, repeated bool, err error)
}

// Config is what a Link is told once. Zero durations and counts mean the defaults named here.
type Config struct {
	Tenant string // names as in ValidateName
	Device string
	Broker string // "host:port"; a scheme tls://, ssl:// or mqtts:// may stand before it
	TLS    *tls.Config

	ManagementKey []byte              // X25519 public key, 32 bytes
	CommandKeys   []ed25519.PublicKey // of the fleet authority; several during a change of keys
	// Origin identifies the outbox that numbers the records (a name, or empty). It must change when the store is made anew,
	// or receivers take the new record 1 for a repeat of the old one.
	Origin string
	// NotBefore is a time that has surely passed: the last one the store remembers, or the build time. While the clock
	// stands before it (less ClockLeeway) every command is refused with ReasonClock. Status.TimeFloor is the value to keep.
	NotBefore time.Time

	Software string    // version, for the birth message
	Started  time.Time // of the process, for the birth message

	Window         int           // records in flight, default 16
	QueueDepth     int           // commands waiting, default 32
	MaxRecordBytes int           // larger records are reported as a gap, default 1 MiB
	BackoffBase    time.Duration // default 1 s
	BackoffLimit   time.Duration // default 60 s, at most 1 h
	ConnectTimeout time.Duration // TCP, TLS, CONNACK, SUBACK: each; default 20 s
	KeepAlive      time.Duration // whole seconds, default 30 s
	WriteTimeout   time.Duration // default 10 s
	AckTimeout     time.Duration // a PUBACK later than this ends the connection, default 30 s
	CloseTimeout   time.Duration // for the farewell when Run ends, default 5 s
	CommandTimeout time.Duration // for one Execute, default 30 s
}

// Deps are the parts the link works with. Outbox, Executor, Reply, Audit and NextSession are required.
type Deps struct {
	Outbox   Outbox
	Executor Executor
	// Reply stores Result.Encode() as a record of ClassResult in the outbox, durably. Only then is the command acknowledged.
	Reply func(context.Context, Result) error
	// Audit records a refused command. Calls are rate limited per reason.
	Audit func(context.Context, Refusal) error
	// NextSession returns a number greater than every one before, persisted first. It is called once per TLS connection.
	NextSession func(context.Context) (uint64, error)
	// Models lists the loaded models for the birth message; nil for none.
	Models func() []string
	Now    func() time.Time // default time.Now
	Rand   func() float64   // uniform in [0, 1); default math/rand/v2
	Logger *slog.Logger     // default discards
}

// Link is the device's connection to its fleet. Make it with New, drive it with Run.
type Link struct {
	cfg     Config
	deps    Deps
	addr    string
	tls     *tls.Config
	topics  Topics
	key     hpke.PublicKey
	log     *slog.Logger
	verify  *verifier
	refused *refusals
	inbox   *inbox
	back    backoff
	status  statusBook
	started atomic.Bool
	discard bool   // next connection starts a clean session; only Run's goroutine
	highest uint64 // highest record id ever published; only Run's goroutine
	wait    func(context.Context, time.Duration) error
}

// New checks cfg and deps and makes a Link. It does no I/O.
func New(cfg Config, deps Deps) (*Link, error) {
	cfg.defaults()
	deps.defaults()
	topics, err := NewTopics(cfg.Tenant, cfg.Device)
	if err != nil {
		return nil, err
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if err := deps.check(); err != nil {
		return nil, err
	}
	addr, err := brokerAddress(cfg.Broker)
	if err != nil {
		return nil, err
	}
	management, err := ParseManagementKey(cfg.ManagementKey)
	if err != nil {
		return nil, err
	}
	keys, err := commandKeys(cfg.CommandKeys)
	if err != nil {
		return nil, err
	}
	tlsConfig := cfg.TLS.Clone()
	tlsConfig.Time = deps.Now
	log := deps.Logger.With("room", "fleet", "device", cfg.Device)
	l := &Link{
		cfg: cfg, deps: deps, addr: addr, tls: tlsConfig, topics: topics, key: management, log: log,
		verify:  &verifier{topics: topics, keys: keys, now: deps.Now},
		refused: newRefusals(deps.Audit, log),
		back:    backoff{base: cfg.BackoffBase, limit: cfg.BackoffLimit, rand: deps.Rand},
		wait:    sleep,
	}
	l.verify.floor.raise(cfg.NotBefore)
	l.inbox = newInbox(l)
	l.status.since(deps.Now())
	return l, nil
}

// Run keeps the link up until ctx ends, and returns nil then: offline is published, the connection is closed and every
// goroutine has ended, within WriteTimeout + CloseTimeout and the running Execute. It returns ErrRunning on a second call.
func (l *Link) Run(ctx context.Context) error {
	if l.started.Swap(true) {
		return ErrRunning
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.inbox.work(ctx)
	}()
	defer func() { <-done }()
	for {
		began := time.Now()
		err := l.once(ctx)
		if ctx.Err() != nil {
			err = nil
		}
		l.status.disconnected(l.deps.Now(), err)
		if ctx.Err() != nil {
			return nil
		}
		l.back.settle(time.Since(began))
		pause := l.back.next()
		l.log.Warn("fleet link is down", "error", err, "retry_seconds", pause.Seconds())
		if l.wait(ctx, pause) != nil {
			return nil
		}
	}
}

// once makes one connection and serves it until it fails or ctx ends.
func (l *Link) once(ctx context.Context) error {
	c, err := l.connect(ctx)
	if err != nil {
		return err
	}
	defer c.finish()
	err = c.hello(ctx)
	if err == nil {
		l.discard = false
		l.status.connected(l.deps.Now(), c.session)
		l.log.Info("fleet link is up", "session", c.session)
		err = c.serve(ctx)
	}
	if ctx.Err() != nil {
		c.goodbye()
		return nil
	}
	l.poisoned(c.conn)
	c.abort(err)
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Config) defaults() {
	orInt := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	or := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	orInt(&c.Window, 16)
	orInt(&c.QueueDepth, 32)
	orInt(&c.MaxRecordBytes, 1<<20)
	or(&c.BackoffBase, time.Second)
	or(&c.BackoffLimit, time.Minute)
	or(&c.ConnectTimeout, 20*time.Second)
	or(&c.KeepAlive, 30*time.Second)
	or(&c.WriteTimeout, 10*time.Second)
	or(&c.AckTimeout, 30*time.Second)
	or(&c.CloseTimeout, 5*time.Second)
	or(&c.CommandTimeout, 30*time.Second)
}

func (c *Config) check() error {
	if c.TLS == nil || c.TLS.MinVersion < tls.VersionTLS13 || c.TLS.InsecureSkipVerify {
		return errors.New("cannot link to the fleet: TLS must be verified and at least 1.3; make it with TLSConfig")
	}
	if c.Origin != "" {
		if err := ValidateName(c.Origin); err != nil {
			return fmt.Errorf("cannot use origin %q: %w", c.Origin, err)
		}
	}
	if c.Window < 1 || c.Window > 1024 || c.QueueDepth < 1 || c.QueueDepth > 1024 || c.MaxRecordBytes < 1 {
		return errors.New("cannot link to the fleet: Window and QueueDepth must be 1 to 1024, MaxRecordBytes positive")
	}
	if c.BackoffBase < 0 || c.BackoffBase > c.BackoffLimit || c.BackoffLimit > time.Hour {
		return errors.New("cannot link to the fleet: want 0 < BackoffBase <= BackoffLimit <= 1 h")
	}
	if c.KeepAlive < time.Second || c.KeepAlive%time.Second != 0 || c.KeepAlive > 18*time.Hour {
		return errors.New("cannot link to the fleet: KeepAlive must be whole seconds, 1 s to 18 h")
	}
	for _, d := range []time.Duration{c.ConnectTimeout, c.WriteTimeout, c.AckTimeout, c.CloseTimeout, c.CommandTimeout} {
		if d < 0 {
			return errors.New("cannot link to the fleet: a timeout is negative")
		}
	}
	return nil
}

func (d *Deps) defaults() {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Rand == nil {
		d.Rand = rand.Float64
	}
	if d.Models == nil {
		d.Models = func() []string { return nil }
	}
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
}

func (d *Deps) check() error {
	if d.Outbox == nil || d.Executor == nil || d.Reply == nil || d.Audit == nil || d.NextSession == nil {
		return errors.New("cannot link to the fleet: Outbox, Executor, Reply, Audit and NextSession are required")
	}
	return nil
}

func brokerAddress(broker string) (string, error) {
	addr := broker
	if scheme, rest, ok := strings.Cut(broker, "://"); ok {
		if scheme != "tls" && scheme != "ssl" && scheme != "mqtts" {
			return "", fmt.Errorf("cannot use broker scheme %q: want tls, ssl or mqtts", scheme)
		}
		addr = rest
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" || port == "" {
		return "", errors.New("cannot use the broker's address: want host:port")
	}
	return addr, nil
}
