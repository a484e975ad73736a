package core

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"vigil/daemon/decide"
	"vigil/infer"
	"vigil/infer/sched"
	"vigil/sensors"
	"vigil/store"
)

// Modalities of this version.
const (
	Face   = "face"
	Finger = "finger"
)

// Modalities in the order in which they are shown.
var Modalities = []string{Face, Finger}

// presentation is one face or finger of a frame, borrowed for the turn.
type presentation struct {
	box         [4]float32 // pixels of the frame; all of it for a finger
	values      []int8     // template; empty for an attack
	scale       float32
	quality     float32 // 0..1
	advice      string  // what would make it better, in words for the person at the sensor
	guidance    string  // the same as a code; empty where nothing is to be wished
	parts       assessed
	liveness    float32 // 0..1, if hasLiveness
	hasLiveness bool
	attack      bool
}

func (p *presentation) presented() decide.Presented {
	return decide.Presented{Quality: p.quality, Liveness: p.liveness, HasLiveness: p.hasLiveness}
}

// recogniser is the way of one modality from a frame to presentations. One goroutine uses it at a time.
type recogniser interface {
	Dimension() int
	Choices() []infer.Choice
	// see returns what a frame shows, the largest first, and how long each stage took. Both are valid until wipe.
	see(ctx context.Context, f *sensors.Frame, dpi float64) ([]presentation, []infer.Timing, error)
	// checkPicture is a picture of the check set, of no pool.
	checkPicture(ctx context.Context, i int) (*sensors.Frame, error)
	// probe makes the template of a picture of the check set. The caller wipes it.
	probe(ctx context.Context, f *sensors.Frame) (sample, error)
	// wipe overwrites the latest presentations.
	wipe()
	Close() error
}

// Unit is one modality at work: the bundle of now, and the queue for its engines.
type Unit struct {
	app     *Appliance
	kind    string
	slot    *sched.Slot[*generation] // nil: there is no bundle that works
	queue   *sched.Scheduler[*turn]
	matches [][]store.Match // of each worker

	mu       sync.Mutex
	unready  error       // why there is no bundle
	lastSwap *SwapReport // nil: none since the start
	progress *Progress   // of catchUp; nil: there was nothing to do

	swapping sync.Mutex      // one exchange at a time
	scored   map[string]bool // models whose galleries know how to score
}

// Places in the queue of a unit, beside those for the API, which the policy says.
const (
	sensorPlaces = 18 // of every sensor that there can be, and the heartbeat
	bulkPlaces   = 8
)

func newUnit(a *Appliance, kind string) (*Unit, error) {
	n := a.workers()
	u := &Unit{app: a, kind: kind, slot: sched.NewSlot[*generation](n, nil), matches: make([][]store.Match, n), scored: map[string]bool{}}
	for i := range u.matches {
		u.matches[i] = make([]store.Match, 0, 1)
	}
	var err error
	u.queue, err = sched.New(engines{u}, sched.Options{
		Name: kind, Workers: n,
		Places: [sched.Classes]int{sched.Sensor: sensorPlaces, sched.API: a.cfg.Policy.APIQueue, sched.Bulk: bulkPlaces},
	})
	return u, err
}

// workers is how many pipelines each modality has.
func (a *Appliance) workers() int {
	if n := a.cfg.Runtime.Workers; n > 0 {
		return n
	}
	return max(1, runtime.NumCPU()/max(1, a.cfg.Runtime.Threads))
}

// Unit returns the unit of a modality; "" means faces, or fingers on a device whose configuration switches faces off.
// Errors: ErrModality.
func (a *Appliance) Unit(kind string) (*Unit, error) {
	if kind == "" {
		kind = Face
		if a.cfg.Models.Face == off {
			kind = Finger
		}
	}
	for _, u := range a.units() {
		if u.kind == kind {
			return u, nil
		}
	}
	return nil, fmt.Errorf("%w: %q: there are %v", ErrModality, kind, Modalities)
}

func (a *Appliance) units() []*Unit { return []*Unit{a.face, a.finger} }

// Schedulers are what waits, waited and was refused at the engines, one a modality, for metrics.
func (a *Appliance) Schedulers() []sched.Stats {
	var list []sched.Stats
	for _, u := range a.units() {
		list = append(list, u.queue.Stats())
	}
	return list
}

// Modality is the unit's kind.
func (u *Unit) Modality() string { return u.kind }

// now is the bundle at work; nil if there is none, then why says the reason. What it owns is used in turns only.
func (u *Unit) now() *generation {
	g, _ := u.slot.Load()
	return g
}

// ready is now, or why there is none.
func (u *Unit) ready() (*generation, error) {
	if g := u.now(); g != nil {
		return g, nil
	}
	return nil, u.why()
}

// why is the reason for which the unit has no bundle.
func (u *Unit) why() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.unready == nil {
		return ErrNoModel
	}
	return u.unready
}

func (u *Unit) setUnready(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.unready = err
}

// busy makes a refusal of the scheduler ErrBusy too; other errors are as they were.
func busy(err error) error {
	var r *sched.Refusal
	if errors.As(err, &r) {
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return err
}

// deadline is by when a request must be answered: the context's, else the policy's for the API. Bulk has time.
func (u *Unit) deadline(ctx context.Context) time.Time {
	if d, ok := ctx.Deadline(); ok {
		return d
	}
	if sched.ClassOf(ctx) == sched.Bulk {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(u.app.cfg.Policy.APIDeadline))
}

// inUse reports whether the device works with the bundle.
func (a *Appliance) inUse(id string) bool {
	return slices.ContainsFunc(a.units(), func(u *Unit) bool { return u.uses(id) })
}

func (u *Unit) uses(id string) bool { return u.holding(id) != nil }

// holding is the bundle of that id if it is at work, as the one in use or its elder; else nil.
func (u *Unit) holding(id string) *generation {
	g := u.now()
	if g != nil && g.id != id {
		g = g.elder
	}
	if g == nil || g.id != id {
		return nil
	}
	return g
}

// close ends the queue and frees the models.
func (u *Unit) close() error {
	errs := []error{u.queue.Close()}
	if g, _ := u.slot.Swap(nil); g != nil {
		errs = append(errs, g.close(), g.elder.close())
	}
	return errors.Join(errs...)
}
