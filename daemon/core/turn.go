package core

import (
	"context"
	"errors"
	"time"

	"vigil/infer"
	"vigil/infer/face"
	"vigil/infer/finger"
	"vigil/infer/sched"
	"vigil/sensors"
	"vigil/store"
)

// turn is one frame's way through the engines of a unit: a job of its scheduler.
type turn struct {
	ctx   context.Context //nolint:containedctx // of the job, for its time
	frame *sensors.Frame  // borrowed
	dpi   float64
	// then is called on the worker with what the frame shows. Its error is no failure of the engine.
	then func(t *turn) error
	err  error // of then

	// Of the worker, borrowed until then returns.
	unit    *Unit
	gen     *generation
	seen    []presentation // the largest first
	elder   []presentation // of the same frame, by the bundle before
	matches []store.Match
	began   time.Time // on the worker
	timings []infer.Timing
}

// engines runs the turns of a unit.
type engines struct{ u *Unit }

// Run implements sched.Executor. What was seen is wiped before it returns.
func (e engines) Run(worker int, batch []*turn) error {
	u, t := e.u, batch[0]
	g, _ := u.slot.Enter(worker)
	defer u.slot.Leave(worker)
	if g == nil {
		return u.why()
	}
	defer t.leave()
	t.unit, t.gen, t.matches, t.began = u, g, u.matches[worker], time.Now()
	seen, timings, err := u.see(t, g.recs[worker])
	defer g.recs[worker].wipe()
	if err != nil {
		return err
	}
	u.note(timings)
	t.seen, t.timings = seen, timings
	if g.elder != nil {
		defer g.elder.recs[worker].wipe()
		if t.elder, _, err = u.see(t, g.elder.recs[worker]); err != nil {
			return err
		}
	}
	t.err = t.then(t)
	return nil
}

// leave gives back what belongs to the worker.
func (t *turn) leave() {
	t.seen, t.elder, t.matches, t.gen, t.timings = nil, nil, nil, nil, nil
}

// see runs a pipeline; a failure that is not the frame's degrades the device.
func (u *Unit) see(t *turn, rec recogniser) ([]presentation, []infer.Timing, error) {
	seen, timings, err := rec.see(t.ctx, t.frame, t.dpi)
	if err != nil && !errors.Is(err, face.ErrFormat) && !errors.Is(err, finger.ErrFormat) && t.ctx.Err() == nil {
		u.app.health.degrade("model", err)
	}
	return seen, timings, err
}

// note keeps the timings of a frame.
func (u *Unit) note(timings []infer.Timing) {
	a := u.app
	for i := range timings {
		s := &timings[i]
		if s.Deadline == 0 {
			continue // a stage that the bundle lacks
		}
		a.stats.observe(s.Stage, s.Took)
		if s.Late() {
			a.stats.late(s.Stage)
		}
	}
	a.health.proved(proofPipeline)
}

// search finds the best candidate of the galleries for one of the presentations.
func (t *turn) search(p *presentation) find {
	start := time.Now()
	f := t.identify(t.gen, p)
	if t.gen.elder != nil {
		if old := counterpart(t.elder, p); old != nil && len(old.values) > 0 {
			f = better(f, t.identify(t.gen.elder, old), identifyThreshold)
		}
	}
	t.unit.app.stats.observe(StageMatch, time.Since(start))
	return f
}

func (t *turn) identify(g *generation, p *presentation) find {
	t.matches = g.gallery.Identify(store.Probe{Values: p.values, Scale: p.scale}, t.matches[:0])
	if len(t.matches) == 0 {
		return find{score: -1, by: g}
	}
	return find{t.matches[0].SubjectID, t.matches[0].Score, g}
}

// verify compares one of the presentations with the templates of a person; false if there are none.
func (t *turn) verify(subject string, p *presentation) (f find, ok bool) {
	f.subject, f.by = subject, t.gen
	f.score, ok = t.gen.gallery.Verify(subject, store.Probe{Values: p.values, Scale: p.scale})
	if t.gen.elder == nil {
		return f, ok
	}
	old := counterpart(t.elder, p)
	if old == nil || len(old.values) == 0 {
		return f, ok
	}
	score, had := t.gen.elder.gallery.Verify(subject, store.Probe{Values: old.values, Scale: old.scale})
	e := find{subject, score, t.gen.elder}
	switch {
	case !had:
		return f, ok
	case !ok:
		return e, true
	}
	return better(f, e, verifyThreshold), true
}

// counterpart is the presentation of the list that shows what p does: the one whose box overlaps most, at least by half.
func counterpart(list []presentation, p *presentation) (best *presentation) {
	most := float32(0.5)
	for i := range list {
		if o := overlap(list[i].box, p.box); o >= most {
			best, most = &list[i], o
		}
	}
	return best
}

// overlap is intersection over union of two boxes of x, y, width and height.
func overlap(a, b [4]float32) float32 {
	w := min(a[0]+a[2], b[0]+b[2]) - max(a[0], b[0])
	h := min(a[1]+a[3], b[1]+b[3]) - max(a[1], b[1])
	if w <= 0 || h <= 0 {
		return 0
	}
	inter := w * h
	return inter / (a[2]*a[3] + b[2]*b[3] - inter)
}

// do waits for the engines and takes a turn. Errors: those of busy, why the unit is not ready, the pipeline's, then's.
func (u *Unit) do(ctx context.Context, c sched.Class, deadline time.Time, t *turn) error {
	t.ctx, t.err = ctx, nil
	if err := u.queue.Do(ctx, c, deadline, t); err != nil {
		return busy(err)
	}
	return t.err
}
