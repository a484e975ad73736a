package minutiae

import (
	"math"
	"slices"
)

// Constants of the comparison. They were chosen on generated prints that no network was trained on, never on real ones.
const (
	candidates = 96   // pairs that are looked at
	alike      = 0.35 // cosine of two descriptions from which on a pair is a candidate
	reach      = 9    // pixels by which a neighbour may lie elsewhere, and
	stretch    = 0.16 // the share of its distance that is added
	turn       = 24   // 256ths of a turn by which directions may differ
	rounds     = 4    // of mutual support
	support    = 0.6  // weight of support against the pair's own likeness
	partners   = 6    // supporters that make a pair wholly trustworthy
	half       = 6    // summed trust at which the score is 1/2
)

// pair is a candidate: minutia a of the probe is minutia b of the other.
type pair struct {
	a, b  int16
	like  float32 // of the descriptions, 0 to 1
	trust float32
}

// side is one row in a form that is quick to work with.
type side struct {
	n        int
	x, y     [Max]float32
	cos, sin [Max]float32
	angle    [Max]uint8
}

// Matcher compares one probe with any number of rows.
type Matcher struct {
	probe, other side
	row          []int8 // of the probe
	pairs        []pair
	next         [candidates]float32
	bonds        [candidates][candidates]float32
	usedA, usedB [Max]bool
}

// NewMatcher makes a matcher without a probe, about 45 KB.
func NewMatcher() *Matcher { return &Matcher{pairs: make([]pair, 0, Max*Max)} }

// SetProbe takes the row that Score compares with; it is borrowed until the next SetProbe. The error is Check's.
func (m *Matcher) SetProbe(row []int8) error {
	m.row = nil
	if err := Check(row); err != nil {
		return err
	}
	m.row = row
	m.probe.read(row)
	return nil
}

// Wipe forgets the probe and overwrites what was derived from it and from the rows it was compared with.
func (m *Matcher) Wipe() {
	clear(m.pairs[:cap(m.pairs)])
	*m = Matcher{pairs: m.pairs[:0]}
}

var cosines, sines = tables()

func tables() (c, s [256]float32) {
	for i := range c {
		c[i], s[i] = float32(math.Cos(float64(i)*math.Pi/128)), float32(math.Sin(float64(i)*math.Pi/128))
	}
	return c, s
}

func (s *side) read(row []int8) {
	s.n = Count(row)
	for i := range s.n {
		at := row[places+i*placeBytes:][:placeBytes]
		s.x[i], s.y[i] = float32(getUint16(at[0:]))*(1.0/unit), float32(getUint16(at[2:]))*(1.0/unit)
		s.angle[i] = uint8(at[4])
		s.cos[i], s.sin[i] = cosines[s.angle[i]], sines[s.angle[i]]
	}
}

// Score compares the probe with a row. It is 0 without a probe and for a row that Check refuses.
func (m *Matcher) Score(row []int8) float32 {
	if m.row == nil || Check(row) != nil {
		return 0
	}
	m.other.read(row)
	m.findPairs(row)
	m.bond()
	m.relax()
	sum := m.choose()
	return sum / (sum + half)
}

// findPairs lists the candidates, the likest first.
func (m *Matcher) findPairs(row []int8) {
	m.pairs = m.pairs[:0]
	least := int32(math.Round(alike * 127 * 127))
	for i := range m.probe.n {
		d := Descriptor(m.row, i)
		for j := range m.other.n {
			if dot := dot64(d, Descriptor(row, j)); dot > least {
				like := (float32(dot)*(1.0/(127*127)) - alike) * (1 / (1 - alike))
				m.pairs = append(m.pairs, pair{a: int16(i), b: int16(j), like: like})
			}
		}
	}
	slices.SortFunc(m.pairs, func(p, q pair) int {
		switch {
		case p.like > q.like:
			return -1
		case p.like < q.like:
			return 1
		}
		return int(p.a-q.a)*Max + int(p.b-q.b)
	})
	m.pairs = m.pairs[:min(len(m.pairs), candidates)]
}

func dot64(a, b []int8) int32 {
	a, b = a[:DescriptorBytes], b[:DescriptorBytes]
	var s0, s1, s2, s3 int32
	for i := 0; i < DescriptorBytes; i += 4 {
		s0 += int32(a[i]) * int32(b[i])
		s1 += int32(a[i+1]) * int32(b[i+1])
		s2 += int32(a[i+2]) * int32(b[i+2])
		s3 += int32(a[i+3]) * int32(b[i+3])
	}
	return s0 + s1 + s2 + s3
}

// bond works out how well each two candidates go together.
func (m *Matcher) bond() {
	for k := range m.pairs {
		m.bonds[k][k] = 0
		for l := range k {
			b := m.agree(&m.pairs[k], &m.pairs[l])
			m.bonds[k][l], m.bonds[l][k] = b, b
		}
	}
}

// agree is 1 where the minutiae of q lie in the frames of those of p in the same way in both prints, and 0 where they do
// not, or where the pairs contradict each other.
func (m *Matcher) agree(p, q *pair) float32 {
	if p.a == q.a || p.b == q.b {
		return 0
	}
	s, o := &m.probe, &m.other
	turned := int8(s.angle[q.a] - s.angle[p.a] - (o.angle[q.b] - o.angle[p.b]))
	dir := float32(turned) * (1.0 / turn)
	if dir *= dir; dir >= 1 {
		return 0
	}
	ax, ay := s.x[q.a]-s.x[p.a], s.y[q.a]-s.y[p.a]
	bx, by := o.x[q.b]-o.x[p.b], o.y[q.b]-o.y[p.b]
	tolerance := reach + stretch*float32(math.Sqrt(float64(max(ax*ax+ay*ay, bx*bx+by*by))))
	limit := 1 / (tolerance * tolerance)
	fp := s.off(p.a, ax, ay, o, p.b, bx, by) * limit
	fq := s.off(q.a, ax, ay, o, q.b, bx, by) * limit
	if fp >= 1 || fq >= 1 {
		return 0
	}
	return (1 - dir) * (1 - max(fp, fq))
}

// off is the squared distance between two displacements, each seen in the frame of a minutia.
func (s *side) off(i int16, ax, ay float32, o *side, j int16, bx, by float32) float32 {
	dx := ax*s.cos[i] - ay*s.sin[i] - (bx*o.cos[j] - by*o.sin[j])
	dy := ax*s.sin[i] + ay*s.cos[i] - (bx*o.sin[j] + by*o.cos[j])
	return dx*dx + dy*dy
}

// relax lets candidates support each other.
func (m *Matcher) relax() {
	n := len(m.pairs)
	for k := range m.pairs {
		m.pairs[k].trust = m.pairs[k].like
	}
	for range rounds {
		for k := range n {
			var sum float32
			for l, b := range m.bonds[k][:n] {
				sum += b * m.pairs[l].trust
			}
			m.next[k] = (1-support)*m.pairs[k].like + support*min(1, sum*(1.0/partners))
			if sum < 0.05 {
				m.next[k] = 0 // nobody agrees: an accident
			}
		}
		for k := range n {
			m.pairs[k].trust = m.next[k]
		}
	}
}

// choose takes the most trusted pairs, each minutia once, and sums them up; a pair that disagrees with what is chosen
// already counts little.
func (m *Matcher) choose() float32 {
	clear(m.usedA[:])
	clear(m.usedB[:])
	var sum float32
	var chosen [Max]int
	n := 0
	for {
		best, at := float32(0), -1
		for k := range m.pairs {
			p := &m.pairs[k]
			if p.trust > best && !m.usedA[p.a] && !m.usedB[p.b] {
				best, at = p.trust, k
			}
		}
		if at < 0 {
			return sum
		}
		p := &m.pairs[at]
		m.usedA[p.a], m.usedB[p.b] = true, true
		worth := best * p.like
		if n > 0 {
			var together float32
			for _, k := range chosen[:n] {
				together += min(1, 2*m.bonds[at][k])
			}
			worth *= together / float32(n)
		}
		chosen[n] = at
		n++
		sum += worth
		m.pairs[at].trust = 0
	}
}
