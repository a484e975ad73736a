package store

import (
	"fmt"
	"sync"

	"vigil/kernels/cpu"
	"vigil/secure/mem"
)

const (
	rowAlign = 64  // bytes; a cache line, and the widest vector load of a kernel backend
	minRows  = 64  // rows of a gallery's first buffer
	scanRows = 256 // rows per kernel call: their dot products fit the first-level cache
)

// Probe is a template to compare with a gallery. Its length must be that of the
// gallery's templates; Gallery.Accepts says so in words.
type Probe struct {
	Values []int8
	Scale  float32 // makes Values unit length
}

// Match is one subject and the score of its best template, the cosine of the
// angle between it and the probe.
type Match struct {
	SubjectID string
	Score     float32
}

// Comparer scores rows that are no vectors. It belongs to one goroutine at a
// time; a gallery keeps some and makes more when it needs them.
type Comparer interface {
	// SetProbe takes the row to compare with, borrowed until the next SetProbe. It refuses what is no row.
	SetProbe(row []int8) error
	// Score compares the probe with a row: higher is more alike. It allocates nothing.
	Score(row []int8) float32
	// Wipe forgets the probe and whatever was derived from rows.
	Wipe()
}

// Gallery holds the decrypted templates of one model in locked memory and
// compares them with probes, exactly: score = float32(dot) * row scale * probe
// scale, in this order, or what its Comparer says, and every row is looked at.
// (The dot product is exact up to 1024 values: 127*127*1024 is below 2^24.)
//
// Any number of goroutines may call its methods. They share a read lock; an
// Update takes the write lock only to publish its rows, which is a matter of
// microseconds, or of one copy of the rows when the gallery has doubled. A call
// sees all of an Update or nothing of it.
type Gallery struct {
	modelID string

	compare *sync.Pool // of Comparers; nil: rows are vectors
	mu      sync.RWMutex
	buf     *mem.Buffer // nil while empty
	rows    []int8      // all of buf
	dim     int         // values per row; 0 while empty
	stride  int         // bytes per row, dim rounded up to rowAlign
	n       int         // rows that are visible; rows behind them belong to the writer
	scales  []float32   // per row, with room for the writer's
	owners  []string    // per row
	own     map[string][]int
}

// dots is scratch for one scan; pooled because kernels may be reached through a
// function value, which makes it escape.
var dots = sync.Pool{New: func() any { return new([scanRows]int32) }}

func newGallery(modelID string) *Gallery {
	return &Gallery{modelID: modelID, own: make(map[string][]int)}
}

// ModelID returns the model whose templates the gallery holds.
func (g *Gallery) ModelID() string { return g.modelID }

// CompareBy makes the gallery score its rows by Comparers. It is called once,
// before the first probe.
func (g *Gallery) CompareBy(make func() Comparer) {
	g.compare = &sync.Pool{New: func() any { return make() }}
}

// Len returns how many subjects and templates are in the gallery.
func (g *Gallery) Len() (subjects, templates int) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return len(g.own), g.n
}

// Missing returns how many subjects of this gallery have no template in other.
func (g *Gallery) Missing(other *Gallery) int { return len(g.MissingIDs(other)) }

// MissingIDs returns the subjects of this gallery, in no order, who have no template in other.
func (g *Gallery) MissingIDs(other *Gallery) (list []string) {
	g.mu.RLock()
	ids := make([]string, 0, len(g.own))
	for id := range g.own {
		ids = append(ids, id)
	}
	g.mu.RUnlock()
	other.mu.RLock()
	defer other.mu.RUnlock()
	for _, id := range ids {
		if len(other.own[id]) == 0 {
			list = append(list, id)
		}
	}
	return list
}

// Accepts says whether templates of a model and length can be compared with
// this gallery's: nil, or an error that matches ErrModel and names both. An
// empty gallery accepts every length.
func (g *Gallery) Accepts(modelID string, dim int) error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if modelID != g.modelID || g.n != 0 && dim != g.dim {
		return modelError(g.modelID, g.dim, modelID, dim)
	}
	return nil
}

func modelError(haveID string, haveDim int, id string, dim int) error {
	return fmt.Errorf("cannot compare a template of model %q with %d values with those of model %q with %d; enrol again with the model in use: %w", id, dim, haveID, haveDim, ErrModel)
}

// Verify returns the best score of one subject's templates. ok is false when
// the subject has none here, or the probe has another length or no positive scale.
func (g *Gallery) Verify(subjectID string, probe Probe) (score float32, ok bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if !g.comparable(probe) {
		return 0, false
	}
	if g.compare != nil {
		return g.verifyBy(subjectID, probe)
	}
	block := dots.Get().(*[scanRows]int32)
	defer dots.Put(block)
	for _, row := range g.own[subjectID] {
		cpu.DotRows(block[:1], g.rows[row*g.stride:][:g.stride], g.stride, probe.Values)
		s := float32(block[0]) * g.scales[row] * probe.Scale
		if !ok || s > score {
			score, ok = s, true
		}
	}
	return score, ok
}

// Identify returns the best cap(dst) subjects, each with its best template, in
// dst[:0]: highest score first, equal scores by id. The result is exact. It is
// empty when the gallery is, or the probe does not fit as for Verify. It allocates
// nothing; its cost grows with the templates, and with cap(dst) only for the
// templates that enter the result, so keep cap(dst) in the tens.
func (g *Gallery) Identify(probe Probe, dst []Match) []Match {
	dst = dst[:0]
	g.mu.RLock()
	defer g.mu.RUnlock()
	if !g.comparable(probe) || cap(dst) == 0 {
		return dst
	}
	if g.compare != nil {
		return g.identifyBy(probe, dst)
	}
	block := dots.Get().(*[scanRows]int32)
	defer dots.Put(block)
	for start := 0; start < g.n; start += scanRows {
		count := min(scanRows, g.n-start)
		cpu.DotRows(block[:count], g.rows[start*g.stride:(start+count)*g.stride], g.stride, probe.Values)
		for i, dot := range block[:count] {
			m := Match{g.owners[start+i], float32(dot) * g.scales[start+i] * probe.Scale}
			if len(dst) < cap(dst) || m.before(dst[len(dst)-1]) {
				dst = insertMatch(dst, m)
			}
		}
	}
	return dst
}

// comparable says whether a probe has a score at all.
func (g *Gallery) comparable(p Probe) bool {
	return g.n > 0 && len(p.Values) == g.dim && p.Scale > 0
}

// before is the order of results.
func (m Match) before(o Match) bool {
	return m.Score > o.Score || m.Score == o.Score && m.SubjectID < o.SubjectID
}

// insertMatch puts m into the sorted dst unless its subject is there with a
// better score, and drops the last when dst is full. Dropping loses nothing: a
// subject that fell out comes back only with a row that is good enough now.
func insertMatch(dst []Match, m Match) []Match {
	at := len(dst)
	for i := range dst {
		if dst[i].SubjectID == m.SubjectID {
			if !m.before(dst[i]) {
				return dst
			}
			at = i
			break
		}
	}
	if at == len(dst) {
		if len(dst) < cap(dst) {
			dst = dst[:len(dst)+1]
		} else {
			at--
		}
	}
	for ; at > 0 && m.before(dst[at-1]); at-- {
		dst[at] = dst[at-1]
	}
	dst[at] = m
	return dst
}
