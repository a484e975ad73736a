package core

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vigil/infer"
	"vigil/store"
)

// Errors of an exchange of bundles.
var (
	// ErrSwapping: another exchange of the modality is going on.
	ErrSwapping = errors.New("another exchange of models is going on: wait for it")
	// ErrCatchingUp: the bundle before the one in use still answers for people; a third cannot be used beside them.
	ErrCatchingUp = errors.New("people are still enrolled with the bundle before alone")
	// ErrDisagrees: the bundle loads, but does not answer as it must.
	ErrDisagrees = errors.New("the check set is not answered as it must be")
)

// SwapReport is what became of an exchange.
type SwapReport struct {
	Modality string    `json:"modality"`
	Time     time.Time `json:"time"`
	From     string    `json:"from,omitempty"` // bundle in use before
	To       string    `json:"to"`
	Done     bool      `json:"done"`
	Reason   string    `json:"reason,omitempty"` // why it was dropped
	Check    SwapCheck `json:"check"`
	// Elder is the bundle that stays beside To, because Left people are enrolled with it alone.
	Elder string `json:"elder,omitempty"`
	Left  int    `json:"left,omitempty"`
	// UntilRestart: the configuration names another bundle, which is used again after a restart.
	UntilRestart bool    `json:"until_restart,omitempty"`
	LoadMS       float64 `json:"load_ms"`   // to decrypt, load and warm up, beside the work
	CheckMS      float64 `json:"check_ms"`  // likewise
	SwitchMS     float64 `json:"switch_ms"` // until no frame was with the old bundle any more
}

// SwapModel takes an imported bundle (or the one in the binary) into use without a restart: it is loaded and warmed up
// beside the one in use, must answer a check set as it should (see check), and then takes over between two frames. If it
// fails, it is dropped, the old one stays, and the reason is audited and shown in the status. The choice is remembered over
// restarts, unless the configuration names a bundle. People who are enrolled with the old bundle alone are recognised by it
// until they are enrolled with the new one, by themselves or from the pictures of their enrolment, if those were kept
// (policy.keep_enrolment_crops): both see every frame meanwhile, which takes the time of both. Errors beside
// those of loading: vault.ErrNotFound, ErrModality, ErrOff, ErrSwapping, ErrCatchingUp, ErrDisagrees.
func (a *Appliance) SwapModel(ctx context.Context, id string) (SwapReport, error) {
	m, own, err := a.loadBundle(id)
	if err != nil {
		return SwapReport{To: id}, err
	}
	if a.runtime == nil {
		return SwapReport{To: id}, a.unready
	}
	if _, err := modalityOf(m.Manifest); err != nil {
		return SwapReport{To: id}, err
	}
	return a.unitOf(m.Manifest).swap(ctx, m, own)
}

// ImportAndUseModel is ImportModel and then SwapModel. A bundle that is imported and then dropped stays imported: id is
// not empty then.
func (a *Appliance) ImportAndUseModel(ctx context.Context, path, presetName string) (id string, r SwapReport, err error) {
	if id, err = a.ImportModel(ctx, path, presetName); err != nil {
		return "", r, err
	}
	r, err = a.SwapModel(ctx, id)
	return id, r, err
}

// swap is one exchange, from loading to the audit.
func (u *Unit) swap(ctx context.Context, m *infer.Model, own bool) (r SwapReport, err error) {
	a := u.app
	r = SwapReport{Modality: u.kind, Time: a.now().UTC(), To: m.Manifest.ID}
	if !u.swapping.TryLock() {
		return r, ErrSwapping
	}
	defer u.swapping.Unlock()
	if g := u.now(); g != nil {
		r.From = g.id
	}
	configured := a.configured(u.kind)
	r.UntilRestart = configured != "" && configured != r.To
	if err = u.exchange(ctx, m, own, &r); err != nil {
		r.Reason = err.Error()
		a.log.Error("model was not exchanged", "modality", u.kind, "from", r.From, "to", r.To, "err", err)
	} else {
		r.Done = true
		a.log.Info("model exchanged", "modality", u.kind, "from", r.From, "to", r.To, "elder", r.Elder, "left", r.Left)
	}
	u.mu.Lock()
	u.lastSwap = new(r)
	u.mu.Unlock()
	kind := "model.swap"
	if err != nil {
		kind = "model.swap.refused"
	}
	audited := a.audit(context.WithoutCancel(ctx), kind, "", map[string]any{
		"modality": u.kind, "from": r.From, "to": r.To, "elder": r.Elder, "left": r.Left, "reason": r.Reason,
	}, true)
	return r, errors.Join(err, audited)
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1e3 }

// exchange loads, checks and switches. The caller holds u.swapping.
func (u *Unit) exchange(ctx context.Context, m *infer.Model, own bool, r *SwapReport) error {
	a, before := u.app, u.now()
	if a.configured(u.kind) == off {
		return fmt.Errorf("models.%s is \"off\": %w", u.kind, ErrOff)
	}
	if before != nil && before.elder != nil && r.To != before.id && r.To != before.elder.id {
		return fmt.Errorf("%w: %d of them are known to %s only: enrol them again or delete them first",
			ErrCatchingUp, before.elder.gallery.Missing(before.gallery), before.elder.id)
	}
	start := time.Now()
	next, err := u.raise(ctx, m, own)
	r.LoadMS = milliseconds(time.Since(start))
	if err != nil {
		return err
	}
	start = time.Now()
	r.Check, err = u.check(ctx, before, next)
	r.CheckMS = milliseconds(time.Since(start))
	if err == nil {
		err = u.takeOver(ctx, before, next, r)
	}
	if err != nil {
		return errors.Join(err, next.close())
	}
	if !u.lacking() {
		a.health.recover("model")
	}
	return nil
}

// takeOver remembers the choice and switches; before is closed unless it is needed as the elder. On an error nothing has
// changed. Nobody is enrolled meanwhile.
func (u *Unit) takeOver(ctx context.Context, before, next *generation, r *SwapReport) error {
	a := u.app
	a.enrolling.Lock()
	defer a.enrolling.Unlock()
	next.elder = elderOf(before, next)
	if next.elder != nil {
		r.Elder, r.Left = next.elder.id, next.elder.gallery.Missing(next.gallery)
	}
	if err := u.keepChoice(ctx, next); err != nil {
		return err
	}
	start := time.Now()
	u.slot.Swap(next)
	r.SwitchMS = milliseconds(time.Since(start))
	u.queue.Distrust()
	u.setUnready(nil)
	select {
	case a.swapped <- struct{}{}:
	default: // it is known already
	}
	for _, g := range retired(before, next) {
		if err := g.close(); err != nil {
			a.log.Error("old model does not close", "model", g.id, "err", err)
		}
	}
	return nil
}

// elderOf is who must answer beside next for those whom next does not know.
func elderOf(before, next *generation) *generation {
	switch {
	case before == nil:
		return nil
	case before.id == next.id:
		return before.elder
	case before.gallery.Missing(next.gallery) > 0:
		return before
	}
	return nil
}

// retired are the bundles of before that next does not need.
func retired(before, next *generation) (list []*generation) {
	if before == nil {
		return nil
	}
	for _, g := range []*generation{before, before.elder} {
		if g != nil && g != next.elder {
			list = append(list, g)
		}
	}
	return list
}

// retireElder lets the bundle before go when everybody is enrolled with the one in use.
func (u *Unit) retireElder(ctx context.Context) error {
	if !u.swapping.TryLock() {
		return nil // next time
	}
	defer u.swapping.Unlock()
	u.app.enrolling.Lock()
	defer u.app.enrolling.Unlock()
	g := u.now()
	if g == nil || g.elder == nil || g.elder.gallery.Missing(g.gallery) > 0 {
		return nil
	}
	alone := *g
	alone.elder = nil
	if err := u.keepChoice(ctx, &alone); err != nil {
		return err
	}
	u.slot.Swap(&alone)
	u.queue.Distrust()
	u.app.log.Info("everybody is enrolled with the model in use: the one before is let go", "modality", u.kind, "model", g.id, "before", g.elder.id)
	return errors.Join(g.elder.close(), u.app.audit(ctx, "model.retire", "", map[string]any{"modality": u.kind, "model": g.elder.id}, true))
}

// raiseElder loads the bundle before again after a restart, if there are people who need it. That it cannot be loaded
// degrades the device: those people are not recognised.
func (u *Unit) raiseElder(ctx context.Context) error {
	a, g := u.app, u.now()
	id, err := a.setting(elderSetting(u.kind))
	if err != nil || id == "" || id == g.id || a.store.Gallery(id).Missing(g.gallery) == 0 {
		return err
	}
	m, own, err := a.loadBundle(id)
	var elder *generation
	if err == nil {
		elder, err = u.raise(ctx, m, own)
	}
	if err != nil {
		a.health.degrade("model "+id, fmt.Errorf("people who are enrolled with it alone are not recognised: %w", err))
		return ctx.Err()
	}
	both := *g
	both.elder = elder
	u.slot.Swap(&both)
	return nil
}

// configured is the bundle that the configuration names.
func (a *Appliance) configured(kind string) string {
	if kind == Finger {
		return a.cfg.Models.Finger
	}
	return a.cfg.Models.Face
}

func choiceSetting(kind string) string { return "model/" + kind }
func elderSetting(kind string) string  { return "model-before/" + kind }

// keepChoice remembers the bundle and its elder over restarts.
func (u *Unit) keepChoice(ctx context.Context, g *generation) error {
	elder := ""
	if g.elder != nil {
		elder = g.elder.id
	}
	err := u.app.store.Update(ctx, func(tx *store.Tx) error {
		return errors.Join(tx.Put(choiceSetting(u.kind), []byte(g.id)), tx.Put(elderSetting(u.kind), []byte(elder)))
	})
	if err != nil {
		return fmt.Errorf("cannot remember which model is in use: %w", err)
	}
	return nil
}

// keptChoice is the bundle that SwapModel chose last; "" if it never did.
func (a *Appliance) keptChoice(kind string) (string, error) { return a.setting(choiceSetting(kind)) }

// setting reads a text from the store; "" if there is none.
func (a *Appliance) setting(name string) (text string, err error) {
	err = a.store.View(context.Background(), func(tx *store.Tx) error {
		value, err := tx.Get(name)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		text = string(value)
		return err
	})
	return text, err
}
