package eval

import (
	"cmp"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
)

// Confidence is the level of every bound: two-sided 95 %.
const Confidence = 0.95

// Estimate is a rate with its bounds. Low and High are nil where there is nothing to say.
type Estimate struct {
	Value  float64  `json:"value"`
	Low    *float64 `json:"low,omitempty"`
	High   *float64 `json:"high,omitempty"`
	Method string   `json:"method,omitempty"` // ByBootstrap, ByPresentations or ByThree
}

// Methods of bounds.
const (
	ByBootstrap     = "bootstrap over subjects"
	ByPresentations = "bootstrap over presentations"
	ByThree         = "rule of three"
)

// sorted are comparisons in ascending order of the score, with the subjects of their two sides, so that any weighting by
// subjects gives its distribution in one pass.
type sorted struct{ mated, non column }

type column struct {
	v    []float64
	a, b []int32 // subjects
}

func newSorted(p *Protocol, of []int32, scores []float64, which []int32) sorted {
	var mated, non []int32
	take := func(i int32) {
		if p.Comparisons[i].Mated {
			mated = append(mated, i)
		} else {
			non = append(non, i)
		}
	}
	if which == nil {
		for i := range p.Comparisons {
			take(int32(i))
		}
	}
	for _, i := range which {
		take(i)
	}
	col := func(list []int32) (c column) {
		slices.SortStableFunc(list, func(x, y int32) int { return cmp.Compare(scores[x], scores[y]) })
		c.v, c.a, c.b = make([]float64, len(list)), make([]int32, len(list)), make([]int32, len(list))
		for k, i := range list {
			c.v[k], c.a[k], c.b[k] = scores[i], of[p.Comparisons[i].A], of[p.Comparisons[i].B]
		}
		return c
	}
	return sorted{col(mated), col(non)}
}

// set weighs every comparison by how many times its subjects were drawn; nil weighs all by 1.
func (s *sorted) set(times []uint32) set {
	return set{dist{s.mated.v, s.mated.weights(times)}, dist{s.non.v, s.non.weights(times)}}
}

// weights are cumulative. A mated comparison counts once per draw of its subject; a non-mated one once for each pair of
// draws of its two subjects.
func (c *column) weights(times []uint32) []uint64 {
	if times == nil {
		return nil
	}
	cum := make([]uint64, len(c.v)+1)
	sum := uint64(0)
	for i := range c.v {
		a, b := c.a[i], c.b[i]
		w := uint64(times[a])
		if a != b {
			w *= uint64(times[b])
		}
		sum += w
		cum[i+1] = sum
	}
	return cum
}

// maxBootstrapWork bounds replicates times comparisons: about half a minute on two cores.
const maxBootstrapWork = 4_000_000_000

// replicatesFor lowers the number of replicates for protocols so large that the wanted one would take minutes.
func replicatesFor(wanted, comparisons int) int {
	if wanted == 0 {
		return 0
	}
	return max(min(wanted, maxBootstrapWork/max(1, comparisons)), min(wanted, 100))
}

// draw is replicate k of the seed: n subjects drawn with replacement, as the number of times that each was.
func draw(seed uint64, k, n int, times []uint32) {
	clear(times)
	r := rand.New(rand.NewPCG(seed, uint64(k)))
	for range n {
		times[r.IntN(n)]++
	}
}

// bootstrap computes figures on every replicate, on all cores, each replicate a row. The same seed draws the same
// subjects, so that rows of several systems over one protocol are paired. progress may be nil.
func bootstrap(
	seed uint64, replicates, nSubjects int, figures func(times []uint32) []float64, progress func(done int),
) [][]float64 {
	rows := make([][]float64, replicates)
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), max(1, replicates)) {
		wg.Go(func() {
			times := make([]uint32, nSubjects)
			for k := range next {
				draw(seed, k, nSubjects, times)
				rows[k] = figures(times)
			}
		})
	}
	for k := range replicates {
		next <- k
		if progress != nil {
			progress(k + 1)
		}
	}
	close(next)
	wg.Wait()
	return rows
}

// bounds are the percentiles of column i of the replicates; replicates in which the figure is not defined (no mated
// comparison was drawn) are passed over. ok is false if fewer than half of them define it.
func bounds(rows [][]float64, i int) (low, high float64, ok bool) {
	return percentiles(len(rows), func(k int) float64 { return rows[k][i] })
}

func percentiles(n int, at func(k int) float64) (low, high float64, ok bool) {
	var v []float64
	for k := range n {
		if x := at(k); !math.IsNaN(x) {
			v = append(v, x)
		}
	}
	if len(v) < 2 || len(v) < n/2 {
		return 0, 0, false
	}
	slices.Sort(v)
	return quantile(v, (1-Confidence)/2), quantile(v, (1+Confidence)/2), true
}

// quantile interpolates between the ascending values.
func quantile(v []float64, q float64) float64 {
	x := q * float64(len(v)-1)
	i := int(x)
	if i+1 >= len(v) {
		return v[len(v)-1]
	}
	return v[i] + (x-float64(i))*(v[i+1]-v[i])
}

// ruleOfThree is the upper 95 % bound of a rate of which no error was seen in n independent trials (ISO/IEC 19795-1).
// Comparisons that share subjects are not independent, so the true bound is higher; the report says so.
func ruleOfThree(n int) float64 { return min(1, 3/float64(max(1, n))) }

// estimate gives a figure its bounds: those of the replicates, or the rule of three where no error, or nothing but errors,
// was seen in n trials.
func estimate(value float64, rows [][]float64, i, n int) Estimate {
	e := Estimate{Value: value}
	if (value == 0 || value == 1) && n > 0 {
		low, high := 0.0, ruleOfThree(n)
		if value == 1 {
			low, high = 1-high, 1
		}
		e.Low, e.High, e.Method = &low, &high, ByThree
		return e
	}
	if low, high, ok := bounds(rows, i); ok {
		e.Low, e.High, e.Method = &low, &high, ByBootstrap
	}
	return e
}
