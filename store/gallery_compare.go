package store

// comparer borrows a Comparer with the probe set; nil if it refuses the probe. The caller gives it back with done.
func (g *Gallery) comparer(probe Probe) Comparer {
	c := g.compare.Get().(Comparer)
	if c.SetProbe(probe.Values) != nil {
		g.done(c)
		return nil
	}
	return c
}

func (g *Gallery) done(c Comparer) {
	c.Wipe()
	g.compare.Put(c)
}

// verifyBy is Verify with a Comparer. The read lock is held.
func (g *Gallery) verifyBy(subjectID string, probe Probe) (score float32, ok bool) {
	c := g.comparer(probe)
	if c == nil {
		return 0, false
	}
	defer g.done(c)
	for _, row := range g.own[subjectID] {
		if s := c.Score(g.row(row)[:g.dim]); !ok || s > score {
			score, ok = s, true
		}
	}
	return score, ok
}

// identifyBy is Identify with a Comparer. The read lock is held.
func (g *Gallery) identifyBy(probe Probe, dst []Match) []Match {
	c := g.comparer(probe)
	if c == nil {
		return dst
	}
	defer g.done(c)
	for i := range g.n {
		m := Match{g.owners[i], c.Score(g.row(i)[:g.dim])}
		if len(dst) < cap(dst) || m.before(dst[len(dst)-1]) {
			dst = insertMatch(dst, m)
		}
	}
	return dst
}
