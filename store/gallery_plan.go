package store

// galleryPlan is what a transaction will do to the galleries when it has been
// committed. Templates are staged in the galleries' own locked memory at once,
// which may fail; applying the plan cannot fail.
type galleryPlan struct {
	set    *gallerySet
	steps  []galleryStep
	staged map[*Gallery]int // rows behind the visible ones
}

// galleryStep adds a staged row to a subject, or removes a subject from every
// gallery when g is nil.
type galleryStep struct {
	g         *Gallery
	row       int // place among the staged rows
	subjectID string
}

// accepts says whether a template may be added, as Gallery.Accepts does.
func (p *galleryPlan) accepts(modelID string, dim int) error {
	return p.set.get(modelID).Accepts(modelID, dim)
}

// add stages a template that a caller holds.
func (p *galleryPlan) add(subjectID string, t Template) error {
	g := p.set.get(t.ModelID)
	if err := stage(g, p.staged[g], t.Values, t.Scale); err != nil {
		return err
	}
	p.addStep(g, subjectID)
	return nil
}

// addRaw stages a template that was just decrypted.
func (p *galleryPlan) addRaw(subjectID string, t rawTemplate) error {
	g := p.set.get(t.modelID)
	if err := stage(g, p.staged[g], t.values, t.scale); err != nil {
		return err
	}
	p.addStep(g, subjectID)
	return nil
}

func (p *galleryPlan) addStep(g *Gallery, subjectID string) {
	if p.staged == nil {
		p.staged = make(map[*Gallery]int)
	}
	p.steps = append(p.steps, galleryStep{g, p.staged[g], subjectID})
	p.staged[g]++
}

// remove plans to drop a subject everywhere.
func (p *galleryPlan) remove(subjectID string) {
	p.steps = append(p.steps, galleryStep{subjectID: subjectID})
}

// apply carries the plan out. Each gallery shows all of it or nothing.
func (p *galleryPlan) apply() {
	if len(p.steps) == 0 {
		return
	}
	for _, g := range p.set.all() {
		p.applyTo(g)
	}
	p.steps, p.staged = p.steps[:0], nil
}

func (p *galleryPlan) applyTo(g *Gallery) {
	g.mu.Lock()
	defer g.mu.Unlock()
	base := g.n // where the staged rows begin; drop moves g.n, not them
	for _, step := range p.steps {
		switch step.g {
		case nil:
			g.drop(step.subjectID)
		case g:
			g.publish(base+step.row, step.subjectID)
		}
	}
}

// discard clears what was staged.
func (p *galleryPlan) discard() {
	for g, staged := range p.staged {
		g.clearStaged(staged)
	}
	p.steps, p.staged = nil, nil
}
