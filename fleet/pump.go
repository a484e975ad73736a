package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// pump moves records from the outbox to the broker over one connection: in order, at most Window at once, deleted only
// after their PUBACK. Run's goroutine owns it.
type pump struct {
	link     *Link
	conn     *connection
	seq      uint64   // of the last flight
	inFlight []flight // in the order of publishing
	acked    []flight // acknowledged, not yet deleted
}

// flight is one record on its way. A gap marker may take the place of a record under its id while the record is in
// flight; the class in the outbox tells the two apart.
type flight struct {
	seq    uint64 // names the flight to deliveries
	id     uint64
	stored string // class in the outbox
	sent   time.Time
}

func (f flight) of(r Record) bool { return f.id == r.ID && f.stored == r.Class }

// serve runs the connection until it is lost, stuck, or ctx ends.
func (c *connection) serve(ctx context.Context) error {
	p := &c.pump
	tick := time.NewTicker(max(min(c.link.cfg.AckTimeout/4, time.Second), 10*time.Millisecond))
	defer tick.Stop()
	for {
		changed := c.link.deps.Outbox.OutboxChanged()
		p.settle()
		if err := p.fill(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.ended:
			return c.lostError()
		case <-c.store.signal:
		case <-changed:
		case <-tick.C:
			if err := p.overdue(); err != nil {
				return err
			}
			if c.link.inbox.starved() {
				return errRedeliver
			}
		}
	}
}

// settle deletes what was acknowledged. What cannot be deleted now stays in the window and is tried again.
func (p *pump) settle() {
	fresh := p.conn.store.take()
	p.inFlight = slices.DeleteFunc(p.inFlight, func(f flight) bool {
		landed := slices.Contains(fresh, f.seq)
		if landed {
			p.acked = append(p.acked, f)
		}
		return landed
	})
	err := p.delete()
	p.link.status.update(func(s *Status) {
		s.Acknowledged += uint64(len(fresh))
		s.InFlight = len(p.inFlight) + len(p.acked)
		if err != nil {
			s.OutboxErrors++
		}
	})
	if err != nil {
		p.link.log.Error("cannot delete acknowledged records; trying again", "error", err)
	}
}

// delete removes the acknowledged records that are still what was sent.
func (p *pump) delete() error {
	var ids []uint64
	for _, f := range p.acked {
		now, err := p.link.look(f.id-1, 1)
		if err != nil {
			return err
		}
		if len(now) > 0 && f.of(now[0]) {
			ids = append(ids, f.id)
		}
	}
	if len(ids) > 0 {
		if err := p.link.deps.Outbox.OutboxDelete(ids...); err != nil {
			return err
		}
	}
	p.acked = nil
	return nil
}

// look reads the outbox; a damaged record comes as a gap of no stored class.
func (l *Link) look(after uint64, limit int) ([]Record, error) {
	records, err := l.deps.Outbox.OutboxNext(after, limit)
	var damaged *DamagedRecord
	if errors.As(err, &damaged) {
		return []Record{{ID: damaged.ID}}, nil
	}
	return records, err
}

// fill publishes until the window is full or the outbox has nothing more. It looks from the start each time: what is in
// flight is there still, and a gap marker may have come in at any id.
func (p *pump) fill(ctx context.Context) error {
	room := p.link.cfg.Window - len(p.inFlight) - len(p.acked)
	if room <= 0 || ctx.Err() != nil {
		return nil //nolint:nilerr // Run is ending; the records stay in the outbox
	}
	records, err := p.link.look(0, p.link.cfg.Window)
	if err != nil {
		p.link.status.update(func(s *Status) { s.OutboxErrors++ })
		p.link.log.Error("cannot read the outbox; trying again", "error", err)
		return nil //nolint:nilerr // counted; the next wake-up tries again
	}
	records = slices.DeleteFunc(records, p.busy)
	for _, r := range records[:min(room, len(records))] {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // Run is ending; the records stay in the outbox
		}
		if err := p.publish(r); err != nil {
			return fmt.Errorf("cannot publish record %d: %w", r.ID, err)
		}
	}
	return nil
}

func (p *pump) busy(r Record) bool {
	same := func(f flight) bool { return f.of(r) }
	return slices.ContainsFunc(p.inFlight, same) || slices.ContainsFunc(p.acked, same)
}

func (p *pump) publish(r Record) error {
	l := p.link
	wire := l.fitting(r)
	binding := Binding{Tenant: l.topics.tenant, Device: l.topics.device, Origin: l.cfg.Origin, Class: wire.Class, ID: wire.ID}
	body, err := SealEvent(l.key, binding, wire.Payload)
	if err != nil {
		return err
	}
	payload, err := json.Marshal(Envelope{
		Version: wireVersion, ID: wire.ID, Origin: l.cfg.Origin, Session: p.conn.session, Class: wire.Class, Body: body,
	})
	if err != nil {
		return err
	}
	p.seq++
	p.conn.store.announce(p.seq)
	token := p.conn.client.Publish(l.topics.ForClass(wire.Class), 1, false, payload)
	p.conn.store.announce(0) // a Publish that failed early made no Put; the next one is not this record
	select {
	case <-token.Done(): // a PUBACK that was very quick, or an error
		if err := token.Error(); err != nil {
			return err
		}
	default:
	}
	p.inFlight = append(p.inFlight, flight{seq: p.seq, id: r.ID, stored: r.Class, sent: time.Now()})
	l.published(r)
	return nil
}

// fitting replaces a record that could never be sent by a gap with its id, so that it neither blocks those behind it nor
// disappears silently.
func (l *Link) fitting(r Record) Record {
	gap := Gap{Class: r.Class, Count: 1, From: r.ID, To: r.ID}
	switch {
	case r.Class == "":
		gap.Reason = GapDamaged
	case ValidateName(r.Class) != nil:
		gap.Class, gap.Reason = "", GapClass
	case len(r.Payload) > l.cfg.MaxRecordBytes:
		gap.Reason = GapTooLarge
	default:
		return r
	}
	l.log.Error("record cannot be sent and is reported as a gap", "record", r.ID, "reason", gap.Reason, "bytes", len(r.Payload))
	l.status.update(func(s *Status) { s.Unsendable++ })
	payload, _ := json.Marshal(gap) // scalars always encode
	return Record{ID: r.ID, Class: ClassGap, Payload: payload}
}

func (l *Link) published(r Record) {
	again := r.ID <= l.highest && r.Class != ClassGap
	l.highest = max(l.highest, r.ID)
	l.status.update(func(s *Status) {
		s.Published++
		s.InFlight++
		if again {
			s.Resent++
		}
	})
}

func (p *pump) overdue() error {
	if len(p.inFlight) == 0 {
		return nil
	}
	if waited := time.Since(p.inFlight[0].sent); waited > p.link.cfg.AckTimeout {
		return fmt.Errorf("%w: record %d waits for %v", errAckTimeout, p.inFlight[0].id, waited.Round(time.Millisecond))
	}
	return nil
}
