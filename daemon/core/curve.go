package core

import (
	"context"
	"errors"
	"fmt"

	"vigil/infer/sched"
	"vigil/store"
)

func curveSetting(kind string) string { return "curve/" + kind }

// curveKey names what a curve was measured of: nothing else takes the same time.
func (u *Unit) curveKey(g *generation) string {
	a := u.app
	key := fmt.Sprintf("%s, %s, %d workers, %d threads", g.id, g.runtime.Name(), a.workers(), a.cfg.Runtime.Threads)
	return key[:min(len(key), 255)]
}

// readCurve tells the scheduler what was known of the bundle before the restart. That nothing is known, or not of this
// bundle, is no error: it is learned from the first frames.
func (u *Unit) readCurve(g *generation) {
	kept, err := u.app.setting(curveSetting(u.kind))
	if err != nil || kept == "" {
		return
	}
	c, err := sched.ParseCurve([]byte(kept), u.curveKey(g))
	if err != nil {
		u.app.log.Info("latency curve is not used", "modality", u.kind, "why", err)
		return
	}
	u.queue.SetCurve(c)
}

// keepCurve stores what is known of the bundle in use. That it cannot is logged: the device works without.
func (u *Unit) keepCurve(ctx context.Context) {
	a, g := u.app, u.now()
	c := u.queue.Curve()
	if a.store == nil || g == nil || !c.Known() {
		return
	}
	b, err := c.Append(nil, u.curveKey(g))
	if err == nil {
		err = a.store.Update(ctx, func(tx *store.Tx) error { return tx.Put(curveSetting(u.kind), b) })
	}
	if err != nil && !errors.Is(err, store.ErrClosed) {
		a.log.Warn("cannot keep the latency curve", "modality", u.kind, "err", err)
	}
}
