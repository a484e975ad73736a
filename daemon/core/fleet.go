package core

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"vigil/fleet"
	"vigil/store"
)

// fleetState is the link to central management, if one is configured.
type fleetState struct {
	link  atomic.Pointer[fleet.Link] // set once, while the local interface may be asking already
	floor time.Time                  // proved by signed commands before this start
}

// timeFloor is the latest time that signed commands proved to have passed.
func (f *fleetState) timeFloor() time.Time {
	if l := f.link.Load(); l != nil {
		if t := l.Status().TimeFloor; t.After(f.floor) {
			return t
		}
	}
	return f.floor
}

// ledgerSlack keeps a recorded command longer than any clock difference that is forgiven.
const ledgerSlack = 2 * fleet.ClockLeeway

// startFleet brings up the link. A broker that is dead only grows the outbox.
func (a *Appliance) startFleet(ctx context.Context) error {
	if a.cfg.Fleet.Broker == "" {
		return nil
	}
	cfg, err := a.fleetConfig()
	if err != nil {
		return fmt.Errorf("cannot start the fleet link: %w", err)
	}
	link, err := fleet.New(cfg, fleet.Deps{
		Outbox:      outbox{a.store},
		Executor:    executor{a},
		Reply:       a.reply,
		Audit:       a.refused,
		NextSession: a.nextSession,
		Models:      a.modelIDs,
		Now:         a.now,
		Logger:      a.log.With("room", "fleet"),
	})
	if err != nil {
		return fmt.Errorf("cannot start the fleet link: %w", err)
	}
	a.fleet.link.Store(link)
	a.running.Go(func() {
		if err := link.Run(ctx); err != nil && ctx.Err() == nil {
			a.health.degrade("fleet", err)
			a.log.Error("fleet link ended", "err", err)
		}
	})
	return nil
}

// fleetConfig reads the files that the configuration names.
func (a *Appliance) fleetConfig() (fleet.Config, error) {
	f := a.cfg.Fleet
	cfg := fleet.Config{
		Tenant: f.Tenant, Device: a.DeviceID(), Broker: f.Broker, Origin: a.store.ID(),
		NotBefore: a.fleet.floor, Software: Version, Started: a.started,
	}
	ca, err := os.ReadFile(f.CA)
	if err != nil {
		return cfg, fmt.Errorf("fleet.ca: %w", err)
	}
	cert, err := os.ReadFile(f.Certificate)
	if err != nil {
		return cfg, fmt.Errorf("fleet.certificate: %w (have the request of `vigild provision` signed by the fleet's authority)", err)
	}
	host := f.ServerName
	if host == "" {
		host = hostOf(f.Broker)
	}
	if cfg.TLS, err = fleet.TLSConfig(ca, cert, a.device.Signer(), host); err != nil {
		return cfg, err
	}
	if err := fleet.CheckValidity(cfg.TLS, a.now()); err != nil {
		a.log.Warn("fleet certificate", "err", err)
	}
	if cfg.ManagementKey, err = readManagementKey(f.ManagementKey); err != nil {
		return cfg, err
	}
	for _, path := range f.CommandKeys {
		key, err := readCommandKey(path)
		if err != nil {
			return cfg, err
		}
		cfg.CommandKeys = append(cfg.CommandKeys, key)
	}
	return cfg, nil
}

// hostOf returns the host of "tls://host:port" or "host:port".
func hostOf(broker string) string {
	if _, rest, ok := strings.Cut(broker, "://"); ok {
		broker = rest
	}
	if i := strings.LastIndexByte(broker, ':'); i > 0 {
		broker = broker[:i]
	}
	return strings.Trim(broker, "[]")
}

func readManagementKey(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("fleet.management_key: %w", err)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("fleet.management_key: %s: must be an X25519 public key in base64: %w", path, err)
	}
	return raw, nil
}

func readCommandKey(path string) (ed25519.PublicKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("fleet.command_keys: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("fleet.command_keys: %s: no PEM block", path)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("fleet.command_keys: %s: %w", path, err)
	}
	pub, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("fleet.command_keys: %s: %T is not an Ed25519 key", path, key)
	}
	return pub, nil
}

// outbox shows the store's outbox to the link.
type outbox struct{ s *store.Store }

// OutboxNext implements fleet.Outbox. A gap marker becomes a record that says what was dropped.
func (o outbox) OutboxNext(after uint64, limit int) ([]fleet.Record, error) {
	list, err := o.s.OutboxNext(after, limit)
	if err != nil {
		return nil, damaged(err)
	}
	out := make([]fleet.Record, len(list))
	for i, r := range list {
		out[i] = fleet.Record{ID: r.ID, Class: r.Class, Payload: r.Payload}
		if r.Gap != nil {
			body, err := json.Marshal(r.Gap)
			if err != nil {
				return nil, err
			}
			out[i].Class, out[i].Payload = fleet.ClassGap, body
		}
	}
	return out, nil
}

// damaged tells the link which record cannot be read, so that it reports a gap and goes on behind it.
func damaged(err error) error {
	var r *store.RecordError
	if !errors.As(err, &r) {
		return err
	}
	id, parse := strconv.ParseUint(r.Key, 10, 64)
	if parse != nil {
		return err
	}
	return &fleet.DamagedRecord{ID: id, Err: err}
}

// OutboxDelete implements fleet.Outbox.
func (o outbox) OutboxDelete(ids ...uint64) error { return o.s.OutboxDelete(ids...) }

// OutboxChanged implements fleet.Outbox.
func (o outbox) OutboxChanged() <-chan struct{} { return o.s.OutboxChanged() }

// executor carries fleet commands out, in one transaction with their entry in the ledger.
type executor struct{ a *Appliance }

// recorded is an entry of the ledger.
type recorded struct {
	Digest []byte          `json:"digest"`
	Answer json.RawMessage `json:"answer"`
}

// Execute implements fleet.Executor.
func (e executor) Execute(ctx context.Context, c fleet.Command) (answer json.RawMessage, repeated bool, err error) {
	digest := c.Digest()
	err = e.a.store.Update(ctx, func(tx *store.Tx) error {
		old, found, err := tx.Command(c.ID)
		if err != nil {
			return err
		}
		if found {
			repeated = true
			answer, err = recall(old, digest[:])
			return err
		}
		if answer, err = e.effect(tx, c); err != nil {
			return err
		}
		entry, err := json.Marshal(recorded{Digest: digest[:], Answer: answer})
		if err != nil {
			return err
		}
		_, err = tx.AppendAudit(store.AuditEvent{Time: e.a.now().UTC(), Type: "command", Detail: map[string]any{"id": c.ID, "command": c.Name}})
		return errors.Join(err, tx.RecordCommand(c.ID, c.Expires.Add(ledgerSlack), entry))
	})
	if id, parse := c.Subject(); err == nil && !repeated && c.Name == fleet.CommandSubjectDelete && parse == nil {
		e.a.running.Go(func() { e.a.eraseFactors(context.WithoutCancel(ctx), id) }) // a reader may be slow, the fleet waits
	}
	return answer, repeated, err
}

func recall(entry, digest []byte) (json.RawMessage, error) {
	var r recorded
	if err := json.Unmarshal(entry, &r); err != nil {
		return nil, fmt.Errorf("command ledger: %w", err)
	}
	if string(r.Digest) != string(digest) { // digests of signed commands are no secret
		return nil, fleet.ErrConflict
	}
	return r.Answer, nil
}

// effect does what the command asks for.
func (e executor) effect(tx *store.Tx, c fleet.Command) (json.RawMessage, error) {
	switch c.Name {
	case fleet.CommandStatus:
		return json.Marshal(e.a.Status())
	case fleet.CommandSubjectDelete:
		id, err := c.Subject()
		if err != nil {
			return nil, err
		}
		err = deleteSubject(tx, id, "fleet", e.a.now())
		switch {
		case errors.Is(err, store.ErrNotFound):
			return json.Marshal(map[string]any{"deleted": false, "reason": "no such subject"})
		case errors.Is(err, store.ErrInvalid):
			return json.Marshal(map[string]any{"deleted": false, "reason": "not a subject id"})
		case err != nil:
			return nil, err
		}
		return json.Marshal(map[string]any{"deleted": true})
	}
	return nil, fleet.ErrUnknownCommand
}

// deleteSubject erases a person and audits who asked for it.
func deleteSubject(tx *store.Tx, id, by string, now time.Time) error {
	if err := tx.DeleteSubject(id); err != nil {
		return err
	}
	_, err := tx.AppendAudit(store.AuditEvent{Time: now.UTC(), Type: "subject.delete", Subject: id, Detail: map[string]any{"by": by}})
	return err
}

// reply stores the answer to a command for the outbox.
func (a *Appliance) reply(ctx context.Context, r fleet.Result) error {
	body, err := r.Encode()
	if err != nil {
		return err
	}
	return a.store.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.AppendOutbox(classResult, body)
		return err
	})
}

// refused audits a command that was not carried out.
func (a *Appliance) refused(ctx context.Context, r fleet.Refusal) error {
	detail := map[string]any{"reason": string(r.Reason), "suppressed": r.Suppressed}
	if r.CommandID != "" {
		detail["id"] = r.CommandID
	}
	return a.audit(context.WithoutCancel(ctx), "command.refused", "", detail, true) // also while the device is closing
}

// nextSession counts connections over restarts.
func (a *Appliance) nextSession(ctx context.Context) (n uint64, err error) {
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		text, err := tx.Get(settingSession)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err == nil {
			if n, err = strconv.ParseUint(string(text), 10, 64); err != nil {
				return fmt.Errorf("session number in the store: %w", err)
			}
		}
		n++
		return tx.Put(settingSession, strconv.AppendUint(nil, n, 10))
	})
	return n, err
}

func (a *Appliance) modelIDs() []string {
	var ids []string
	for _, u := range a.units() {
		if g := u.now(); g != nil {
			ids = append(ids, g.id)
		}
	}
	return ids
}
