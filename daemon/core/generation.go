package core

import (
	"context"
	"errors"
	"fmt"

	"vigil/daemon/decide"
	"vigil/infer"
	"vigil/infer/chain"
	"vigil/infer/face"
	"vigil/infer/finger"
	"vigil/store"
)

// generation is one bundle at work: a recogniser for each worker over shared engines, its gallery and its thresholds. It is
// not changed while it works; an exchange of the bundle makes another.
type generation struct {
	id      string // of the model
	dim     int    // values of a template
	builtIn bool   // the bundle is the one in the binary
	recs    []recogniser
	runtime infer.Runtime // that recs run on: the appliance's
	// verdicts say why each faster runtime was passed over.
	verdicts []chain.Verdict
	gallery  *store.Gallery
	policy   decide.Policy
	// scorer makes a function for one goroutine that scores two samples as the gallery does; done frees it.
	scorer func() (score func(a, b *sample) float32, done func())
	// elder is the bundle before this one, while somebody is enrolled with it alone: it sees every frame too, and the better
	// answer of the two galleries counts. nil: there is none.
	elder *generation
}

// choices says which file each stage runs, and why.
func (g *generation) choices() []infer.Choice { return g.recs[0].Choices() }

// close frees the models of this bundle; those of its elder are another's.
func (g *generation) close() error {
	if g == nil {
		return nil
	}
	var errs []error
	for _, r := range g.recs {
		errs = append(errs, r.Close())
	}
	return errors.Join(errs...)
}

// raise loads a bundle beside whatever works now. The caller closes the result, and calls it alone: it holds swapping, or
// nothing runs yet.
func (u *Unit) raise(ctx context.Context, m *infer.Model, builtIn bool) (g *generation, err error) {
	a := u.app
	g = &generation{builtIn: builtIn}
	g.runtime, g.verdicts, err = a.onChain(ctx, func(rt infer.Runtime) (err error) {
		if u.kind == Finger {
			g.recs, err = raiseFinger(ctx, rt, m, a.workers())
		} else {
			g.recs, err = raiseFace(ctx, a, rt, m)
		}
		if err != nil { // the next runtime begins anew
			err, g.recs = errors.Join(err, g.close()), nil
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(err, g.close())
	}
	if u.kind == Finger {
		g.policy, g.scorer = fingerPolicy(a.cfg.Policy, m.Manifest), fingerScorer
	} else {
		g.policy, g.scorer = makePolicy(a.cfg.Policy, m.Manifest), faceScorer
	}
	g.id, g.dim = m.Manifest.ID, g.recs[0].Dimension()
	g.gallery = a.store.Gallery(g.id)
	if err := g.gallery.Accepts(g.id, g.dim); err != nil {
		return nil, errors.Join(err, g.close())
	}
	if u.kind == Finger && !u.scored[g.id] { // a gallery stays when a bundle comes back
		u.scored[g.id] = true
		g.gallery.CompareBy(fingerComparer)
	}
	return g, nil
}

// raiseFace makes the pipelines of a face bundle over one set of engines.
func raiseFace(ctx context.Context, a *Appliance, rt infer.Runtime, m *infer.Model) (recs []recogniser, err error) {
	first, err := face.New(ctx, rt, m)
	if err != nil {
		return nil, err
	}
	recs = append(recs, newFaceSight(first))
	if err := setLiveness(first, a.cfg.Policy, m.Manifest.ID); err != nil {
		return recs, err
	}
	for len(recs) < a.workers() {
		p, err := first.Share()
		if err != nil {
			return recs, err
		}
		recs = append(recs, newFaceSight(p))
	}
	return recs, nil
}

// raiseFinger is raiseFace for fingers.
func raiseFinger(ctx context.Context, rt infer.Runtime, m *infer.Model, workers int) (recs []recogniser, err error) {
	first, err := finger.New(ctx, rt, m)
	if err != nil {
		return nil, err
	}
	recs = append(recs, newFingerSight(first))
	for len(recs) < workers {
		p, err := first.Share()
		if err != nil {
			return recs, err
		}
		recs = append(recs, newFingerSight(p))
	}
	return recs, nil
}

// find is what a search of the galleries gives: the best candidate, and the bundle that knows the person.
type find struct {
	subject string
	score   float32
	by      *generation
}

// margin is by how much the find is over the threshold of its own bundle.
func (f *find) margin(threshold func(*generation) float32) float32 { return f.score - threshold(f.by) }

// better is the find that is more above, or less below, its own bundle's threshold: scores of two bundles do not compare.
func better(a, b find, threshold func(*generation) float32) find {
	if b.margin(threshold) > a.margin(threshold) {
		return b
	}
	return a
}

func identifyThreshold(g *generation) float32 { return g.policy.IdentifyThreshold }
func verifyThreshold(g *generation) float32   { return g.policy.VerifyThreshold }

// as is the score of a find on the scale of another bundle: as far above or below the threshold there.
func (f *find) as(g *generation, threshold func(*generation) float32) float32 {
	return threshold(g) + f.margin(threshold)
}

// errExchanged is why an enrolment ends whose samples are of two models.
var errExchanged = fmt.Errorf("%w: the model was exchanged meanwhile: begin again", ErrSamples)
