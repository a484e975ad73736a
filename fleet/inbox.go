package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"golang.org/x/time/rate"
)

// Answers to repeats are slowed down to this, so that a broker that replays a command cannot flood the outbox.
const (
	repeatBurst     = 32
	repeatPerSecond = rate.Limit(1)
)

// inbox takes commands from paho's router without blocking it and carries them out one after the other.
type inbox struct {
	link    *Link
	queue   chan incoming
	repeats *rate.Limiter
	dropped atomic.Bool // a command was left with the broker
}

type incoming struct {
	payload []byte
	ack     func()
}

func newInbox(l *Link) *inbox {
	return &inbox{link: l, queue: make(chan incoming, l.cfg.QueueDepth), repeats: rate.NewLimiter(repeatPerSecond, repeatBurst)}
}

// offer queues a message. When there is no room it is counted and not acknowledged: the broker keeps it (starved).
func (b *inbox) offer(m mqtt.Message) {
	in := incoming{payload: m.Payload(), ack: m.Ack}
	if len(in.payload) > MaxCommandBytes {
		in.payload = bytes.Clone(in.payload[:MaxCommandBytes+1]) // enough to be refused
	}
	select {
	case b.queue <- in:
	default:
		b.link.status.update(func(s *Status) { s.QueueFull++ })
		if m.Qos() > 0 {
			b.dropped.Store(true)
		}
	}
}

// starved reports, once, that commands were left with the broker and that there is room for them now. A new connection
// makes the broker deliver them again.
func (b *inbox) starved() bool {
	return len(b.queue) == 0 && b.dropped.Swap(false)
}

// work handles commands until ctx ends. What is queued then was not acknowledged and comes again.
func (b *inbox) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case in := <-b.queue:
			if ctx.Err() != nil {
				return
			}
			if b.handle(ctx, in.payload) {
				in.ack()
			} else {
				b.dropped.Store(true)
			}
		}
	}
}

// handle carries out or refuses one command. It reports whether the broker may forget it.
func (b *inbox) handle(ctx context.Context, payload []byte) bool {
	c, reason := b.link.verify.verify(payload)
	if reason != "" {
		return b.refuse(ctx, c, reason)
	}
	limited, cancel := context.WithTimeout(ctx, b.link.cfg.CommandTimeout)
	defer cancel()
	answer, repeated, err := b.link.deps.Executor.Execute(limited, c)
	switch {
	case errors.Is(err, ErrConflict):
		return b.refuse(ctx, c, ReasonReplayed)
	case errors.Is(err, ErrUnknownCommand):
		return b.refuse(ctx, c, ReasonUnknown)
	case err != nil && ctx.Err() != nil:
		return false // we are stopping: it comes again
	case err != nil:
		b.link.log.Error("cannot carry out a command", "command", c.ID, "name", c.Name, "error", err)
		b.link.status.update(func(s *Status) { s.Failed++ })
		return b.reply(ctx, Result{ID: c.ID, Command: c.Name, Status: StatusFailed})
	}
	return b.answer(ctx, c, answer, repeated)
}

func (b *inbox) answer(ctx context.Context, c Command, answer json.RawMessage, repeated bool) bool {
	b.link.status.update(func(s *Status) {
		if repeated {
			s.Repeated++
		} else {
			s.Executed++
		}
	})
	if repeated && b.repeats.Wait(ctx) != nil {
		return false
	}
	b.link.log.Info("command answered", "command", c.ID, "name", c.Name, "repeated", repeated)
	return b.reply(ctx, Result{ID: c.ID, Command: c.Name, Status: StatusOK, Repeated: repeated, Body: answer})
}

// refuse counts and audits; a command that the fleet signed for this device is also answered, within the audit's limit.
func (b *inbox) refuse(ctx context.Context, c Command, reason Reason) bool {
	if !b.link.refused.refuse(ctx, reason, c.ID) || !reason.answerable() {
		return true
	}
	return b.reply(ctx, Result{ID: c.ID, Command: c.Name, Status: StatusRefused, Reason: reason})
}

func (b *inbox) reply(ctx context.Context, r Result) bool {
	if err := b.link.deps.Reply(ctx, r); err != nil {
		b.link.log.Error("cannot store the answer to a command; the broker keeps the command", "command", r.ID, "error", err)
		b.link.status.update(func(s *Status) { s.Failed++ })
		return false
	}
	return true
}
