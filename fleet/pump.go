package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// pump moves records from the outbox to the broker over one connection: in order, at most Window at once, deleted only
// after their PUBACK. Run's goroutine owns it.
type pump struct {
	link     *Link
	conn     *connection
	cursor   uint64   // highest id published on this connection
	inFlight []flight // in the order of publishing
	acked    []uint64 // acknowledged, not yet deleted
}

type flight struct {
	id   uint64
	sent time.Time
}

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
	p.acked = append(p.acked, fresh...)
	p.inFlight = slices.DeleteFunc(p.inFlight, func(f flight) bool { return slices.Contains(fresh, f.id) })
	var err error
	if len(p.acked) > 0 {
		if err = p.link.deps.Outbox.OutboxDelete(p.acked...); err == nil {
			p.acked = nil
		}
	}
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

// fill publishes until the window is full or the outbox has nothing more.
func (p *pump) fill(ctx context.Context) error {
	for ctx.Err() == nil {
		room := p.link.cfg.Window - len(p.inFlight) - len(p.acked)
		if room <= 0 {
			return nil
		}
		records, err := p.link.deps.Outbox.OutboxNext(p.cursor, room)
		if err != nil {
			p.link.status.update(func(s *Status) { s.OutboxErrors++ })
			p.link.log.Error("cannot read the outbox; trying again", "error", err)
			return nil
		}
		if len(records) == 0 {
			if p.cursor == 0 || len(p.inFlight)+len(p.acked) > 0 {
				return nil
			}
			p.cursor = 0 // all is deleted: look once from the start, a gap marker may have taken a low id
			continue
		}
		if err := p.send(ctx, records[:min(room, len(records))]); err != nil {
			return err
		}
	}
	return nil
}

func (p *pump) send(ctx context.Context, records []Record) error {
	for _, r := range records {
		if ctx.Err() != nil {
			return nil
		}
		if r.ID <= p.cursor {
			return fmt.Errorf("cannot publish record %d after record %d: the outbox is not in order", r.ID, p.cursor)
		}
		if err := p.publish(r); err != nil {
			return fmt.Errorf("cannot publish record %d: %w", r.ID, err)
		}
	}
	return nil
}

func (p *pump) publish(r Record) error {
	l := p.link
	r, oversized := l.fitting(r)
	binding := Binding{Tenant: l.topics.tenant, Device: l.topics.device, Origin: l.cfg.Origin, Class: r.Class, ID: r.ID}
	body, err := SealEvent(l.key, binding, r.Payload)
	if err != nil {
		return err
	}
	payload, err := json.Marshal(Envelope{
		Version: wireVersion, ID: r.ID, Origin: l.cfg.Origin, Session: p.conn.session, Class: r.Class, Body: body,
	})
	if err != nil {
		return err
	}
	p.conn.store.announce(r.ID)
	token := p.conn.client.Publish(l.topics.ForClass(r.Class), 1, false, payload)
	p.conn.store.announce(0) // a Publish that failed early made no Put; the next one is not this record
	select {
	case <-token.Done(): // a PUBACK that was very quick, or an error
		if err := token.Error(); err != nil {
			return err
		}
	default:
	}
	p.cursor = r.ID
	p.inFlight = append(p.inFlight, flight{id: r.ID, sent: time.Now()})
	l.published(r.ID, oversized)
	return nil
}

// fitting replaces a record that could never be sent by a gap with its id, so that it neither blocks those behind it nor
// disappears silently.
func (l *Link) fitting(r Record) (Record, bool) {
	reason := ""
	switch {
	case len(r.Payload) > l.cfg.MaxRecordBytes:
		reason = "record is too large"
	case ValidateName(r.Class) != nil:
		reason = "record has a class that is no name"
	default:
		return r, false
	}
	l.log.Error("record cannot be sent and is reported as a gap", "record", r.ID, "reason", reason, "bytes", len(r.Payload))
	payload, _ := json.Marshal(gapBody{Count: 1, From: r.ID, To: r.ID, Reason: reason}) // scalars always encode
	return Record{ID: r.ID, Class: ClassGap, Payload: payload}, true
}

func (l *Link) published(id uint64, oversized bool) {
	again := id <= l.highest
	l.highest = max(l.highest, id)
	l.status.update(func(s *Status) {
		s.Published++
		s.InFlight++
		if again {
			s.Resent++
		}
		if oversized {
			s.Oversized++
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
