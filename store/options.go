package store

import (
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"vigil/secure"
)

// Options are what Open needs. Path and Keyring are required, the rest has the
// defaults that are named here.
type Options struct {
	Path    string           // the bbolt file; its folder must exist
	Keyring *secure.Keyring  // stays the caller's, must outlive the Store
	Now     func() time.Time // default time.Now
	Logger  *slog.Logger     // default discards

	LockWait     time.Duration // how long Open waits for another process; default 2 s
	Outbox       OutboxLimits  // zero fields take the defaults of DefaultOutboxLimits
	CommandLimit int           // most recorded commands; default 4096
}

// OutboxLimits bound the outbox. When one is exceeded, the oldest record of the
// lowest class goes and a gap marker takes its place.
type OutboxLimits struct {
	MaxRecords int           // records, gap markers not counted
	MaxBytes   int64         // bytes at rest, gap markers included
	MaxAge     time.Duration // since the record was appended; see AppendOutbox
	Classes    []string      // lowest priority first
}

// DefaultOutboxLimits hold a month of a busy door: 50,000 records, 64 MiB, 30
// days, and decisions outlive events, which outlive telemetry.
func DefaultOutboxLimits() OutboxLimits {
	return OutboxLimits{
		MaxRecords: 50_000,
		MaxBytes:   64 << 20,
		MaxAge:     30 * 24 * time.Hour,
		Classes:    []string{"telemetry", "event", "decision"},
	}
}

const (
	defaultLockWait     = 2 * time.Second
	defaultCommandLimit = 4096
)

var className = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)

// withDefaults checks o and fills in what is zero.
func (o Options) withDefaults() (Options, error) {
	if o.Path == "" || o.Keyring == nil {
		return o, fmt.Errorf("cannot open store: path and key ring are required: %w", ErrInvalid)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Logger = o.Logger.With("room", "store")
	if o.LockWait <= 0 {
		o.LockWait = defaultLockWait
	}
	if o.CommandLimit <= 0 {
		o.CommandLimit = defaultCommandLimit
	}
	var err error
	o.Outbox, err = o.Outbox.withDefaults()
	return o, err
}

func (l OutboxLimits) withDefaults() (OutboxLimits, error) {
	d := DefaultOutboxLimits()
	if l.MaxRecords <= 0 {
		l.MaxRecords = d.MaxRecords
	}
	if l.MaxBytes <= 0 {
		l.MaxBytes = d.MaxBytes
	}
	if l.MaxAge <= 0 {
		l.MaxAge = d.MaxAge
	}
	if len(l.Classes) == 0 {
		l.Classes = d.Classes
	}
	for _, c := range l.Classes {
		if !className.MatchString(c) {
			return l, fmt.Errorf("cannot use outbox class %q: it must match %s: %w", c, className, ErrInvalid)
		}
	}
	return l, nil
}
