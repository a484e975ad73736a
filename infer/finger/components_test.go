package finger_test

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vigil/infer/finger"
	"vigil/infer/infertest"
	"vigil/kernels/minutiae"
	"vigil/sensors/synth"
)

// sets are real prints of four readers.
var sets = []string{"fvc2002_DB1_B", "fvc2002_DB3_B", "fvc2004_DB2_B", "fvc2004_DB3_B"}

// matchThreshold is the strictest of the bundle's, for duplicates.
const matchThreshold = 0.531

// prints lists the pictures of a set.
func prints(t *testing.T, set string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(infertest.Data(t, "fingerprints", set), "*.png"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// good are the prints of a set that match at least five of the seven others of their finger, with the components of each.
func good(t *testing.T, p *finger.Pipeline, set string) (paths []string, of []finger.Components) {
	t.Helper()
	all := prints(t, set)
	rows, seen := make([][]int8, len(all)), make([]finger.Components, len(all))
	r := p.NewResult()
	for i, path := range all {
		process(t, p, r, read(t, path))
		rows[i], seen[i] = slices.Clone(r.Values), r.Quality.Components
	}
	m := minutiae.NewMatcher()
	for i := range all {
		if m.SetProbe(rows[i]) != nil {
			continue
		}
		matched := 0
		for j := range all {
			if i != j && filepath.Base(all[i])[:3] == filepath.Base(all[j])[:3] && m.Score(rows[j]) >= matchThreshold {
				matched++
			}
		}
		if matched >= 5 {
			paths, of = append(paths, all[i]), append(of, seen[i])
		}
	}
	return paths, of
}

// TestGoodPrintsGetNoCode: in each of the four sets, and over all. They are those that the limits were set on: there are no others.
func TestGoodPrintsGetNoCode(t *testing.T) {
	p := built(t)
	n, none := 0, 0
	for _, set := range sets {
		_, of := good(t, p, set)
		codes := map[finger.Guidance]int{}
		for i := range of {
			codes[of[i].Guidance()]++
		}
		for k := range finger.Kinds {
			var m []float64
			for i := range of {
				m = append(m, float64(of[i][k].Measured))
			}
			slices.Sort(m)
			t.Logf("  %-14s least %.3g, 5 %% %.3g, median %.3g, 95 %% %.3g, most %.3g", k, m[0], m[len(m)/20], m[len(m)/2], m[len(m)*19/20], m[len(m)-1])
		}
		n, none = n+len(of), none+codes[finger.NoGuidance]
		t.Logf("%s: %d good prints of 80: %v", set, len(of), codes)
		if share := float64(codes[finger.NoGuidance]) / float64(len(of)); len(of) < 40 || share < 0.85 {
			t.Errorf("%s: %.2f of %d good prints get no code", set, share, len(of))
		}
	}
	share := float64(none) / float64(n)
	t.Logf("%d good prints: %.3f without a code", n, share)
	if share < 0.9 {
		t.Errorf("%.3f of %d good prints get no code, wanted 0.9", share, n)
	}
}

// fault is a way to spoil a print by more and more.
type fault struct {
	name   string
	levels []float64 // the first one changes nothing
	spoil  func(g fingerprint, level float64) fingerprint
	of     finger.Kind
	codes  []finger.Guidance // of which the strongest level gives one
	share  float64           // of the prints that are still one, at least
	moves  []finger.Kind     // that also move, for a reason
}

var faults = []fault{
	{"partial (of the area)", []float64{1, 0.8, 0.6, 0.4, 0.2}, fingerprint.partial, finger.Coverage, []finger.Guidance{finger.MoreFinger}, 0.9,
		[]finger.Kind{finger.RidgeClarity, finger.MinutiaeCount, finger.Position, finger.Moisture}}, // at the edges nothing can be read
	{"shifted (of the width)", []float64{0, 0.2, 0.4, 0.6}, fingerprint.shifted, finger.Position, []finger.Guidance{finger.CentreFinger, finger.MoreFinger}, 0.9,
		[]finger.Kind{finger.RidgeClarity, finger.MinutiaeCount, finger.Coverage}},
	{"faint (of the contrast)", []float64{1, 0.5, 0.25, 0.12}, fingerprint.faint, finger.Contrast, []finger.Guidance{finger.PressHarder}, 0.9,
		[]finger.Kind{finger.RidgeClarity}},
	{"dry", []float64{0, 1, 2, 3}, fingerprint.dry, finger.Moisture, []finger.Guidance{finger.DryFinger}, 0.75,
		[]finger.Kind{finger.RidgeClarity, finger.MinutiaeCount, finger.Coverage, finger.Contrast, finger.Position}},
	{"wet", []float64{0, 1, 2, 3}, fingerprint.wet, finger.Moisture, []finger.Guidance{finger.WetFinger}, 0.55,
		[]finger.Kind{finger.RidgeClarity, finger.MinutiaeCount, finger.Contrast}},
}

// seen are the components of some prints at one level.
type seen struct {
	all   []finger.Components
	codes map[finger.Guidance]int
	gone  int // prints that are none any more
}

func (s *seen) median(k finger.Kind) (value, measured float64) {
	var v, m []float64
	for i := range s.all {
		v, m = append(v, float64(s.all[i][k].Value)), append(m, float64(s.all[i][k].Measured))
	}
	slices.Sort(v)
	slices.Sort(m)
	return v[len(v)/2], m[len(m)/2]
}

// TestComponentsFallWithTheirFault and hardly move with the others: good real prints of four readers, spoilt by more and more. The
// table that -v prints has a row for each fault at its strongest and the change of each component's value.
func TestComponentsFallWithTheirFault(t *testing.T) {
	if testing.Short() {
		t.Skip("seven hundred prints: not with -short")
	}
	p := built(t)
	var base []fingerprint
	for _, set := range sets {
		paths, of := good(t, p, set)
		for i := 2; i < len(paths); i += 8 {
			if of[i].Guidance() == finger.NoGuidance {
				base = append(base, read(t, paths[i]))
			}
		}
	}
	var table strings.Builder
	fmt.Fprintf(&table, "%d prints\n%-30s", len(base), "change of the median value by")
	for k := range finger.Kinds {
		fmt.Fprintf(&table, "%14s", k)
	}
	for i := range faults {
		x := &faults[i]
		levels := make([]seen, len(x.levels))
		for j, level := range x.levels {
			levels[j].codes = map[finger.Guidance]int{}
			r := p.NewResult()
			for _, g := range base {
				process(t, p, r, x.spoil(g, level))
				levels[j].all = append(levels[j].all, r.Quality.Components)
				if !r.Present {
					levels[j].gone++
					continue
				}
				levels[j].codes[r.Quality.Components.Guidance()]++
			}
		}
		first, last := &levels[0], &levels[len(levels)-1]
		fmt.Fprintf(&table, "\n  %s:", x.of)
		worse := math.Inf(1)
		for j := range levels {
			v, m := levels[j].median(x.of)
			fmt.Fprintf(&table, " %g: %.0f (%.3g)", x.levels[j], v, m)
			if x.of == finger.Moisture { // best in the middle, which no single print need begin at
				_, m0 := first.median(x.of)
				v = 100 - 100*math.Abs(m-m0)
			}
			if v > worse+2 {
				t.Errorf("%s by %g: %s is %.0f, with less %.0f", x.name, x.levels[j], x.of, v, worse)
			}
			worse = v
		}
		if v, _ := first.median(x.of); worse > v-10 && x.of != finger.Moisture || worse > 85 {
			t.Errorf("%s: %s moves from %.0f to %.0f only", x.name, x.of, v, worse)
		}
		right := 0
		for _, code := range x.codes {
			right += last.codes[code]
		}
		fmt.Fprintf(&table, "\n  codes at the strongest: %v, %d are no print any more\n%-30s", last.codes, last.gone, x.name)
		if share := float64(right) / float64(max(1, len(base)-last.gone)); last.gone > len(base)/2 || share < x.share {
			t.Errorf("%s: %v is said of %.2f, wanted %.2f: %v, %d are no print any more", x.name, x.codes, share, x.share, last.codes, last.gone)
		}
		for k := range finger.Kinds {
			a, _ := first.median(k)
			b, _ := last.median(k)
			fmt.Fprintf(&table, "%14.0f", b-a)
			if math.Abs(b-a) > 12 && k != x.of && !slices.Contains(x.moves, k) {
				t.Errorf("%s: %s moves from %.0f to %.0f, which is another fault", x.name, k, a, b)
			}
		}
	}
	t.Log("\n" + table.String())
}

// TestEmptyReaderHasNoCoverage: nothing is there, whatever the network makes of an even picture.
func TestEmptyReaderHasNoCoverage(t *testing.T) {
	p := built(t)
	r := p.NewResult()
	for _, level := range []byte{0, 30, 128, 255} {
		g := fingerprint{320, 360, make([]byte, 320*360)}
		process(t, p, r, g.mapped(func(x, y int) byte { return level }))
		if c := r.Quality.Components; r.Present || c[finger.Coverage].Measured != 0 || c[finger.Coverage].Value != 0 {
			t.Errorf("an even picture of level %d: present %v, %+v", level, r.Present, c)
		}
	}
}

func TestGuidanceNamesTheWorst(t *testing.T) {
	fine := finger.Components{
		finger.Coverage: {Measured: 200}, finger.Position: {Measured: 1}, finger.Contrast: {Measured: 90}, finger.RidgeClarity: {Measured: 0.9},
		finger.MinutiaeCount: {Measured: 30}, finger.Moisture: {Measured: 0.4},
	}
	for _, c := range []struct {
		want  finger.Guidance
		kind  finger.Kind
		spoil map[finger.Kind]float32
	}{
		{finger.NoGuidance, 0, nil},
		{finger.MoreFinger, finger.Coverage, map[finger.Kind]float32{finger.Coverage: 40, finger.RidgeClarity: 0.4}},
		{finger.CentreFinger, finger.Position, map[finger.Kind]float32{finger.Coverage: 40, finger.Position: 5}},
		{finger.PressHarder, finger.Contrast, map[finger.Kind]float32{finger.Contrast: 20}},
		{finger.DryFinger, finger.Moisture, map[finger.Kind]float32{finger.Moisture: 0.05}},
		{finger.WetFinger, finger.Moisture, map[finger.Kind]float32{finger.Moisture: 0.9}},
		{finger.DryFinger, finger.RidgeClarity, map[finger.Kind]float32{finger.RidgeClarity: 0.4, finger.Moisture: 0.2}},
		{finger.WetFinger, finger.MinutiaeCount, map[finger.Kind]float32{finger.MinutiaeCount: 3, finger.Moisture: 0.6}},
		{finger.CleanReader, finger.RidgeClarity, map[finger.Kind]float32{finger.RidgeClarity: 0.4}},
	} {
		x := fine
		for k, v := range c.spoil {
			x[k].Measured = v
		}
		if k, got := x.Worst(); got != c.want || k != c.kind || got != x.Guidance() {
			t.Errorf("%q by %s, want %q by %s", got, k, c.want, c.kind)
		}
	}
}

func TestKindsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for k := range finger.Kinds {
		if n := k.String(); n == "" || seen[n] || k.Unit() == "" {
			t.Errorf("kind %d: name %q, unit %q", k, n, k.Unit())
		}
		seen[k.String()] = true
	}
}

// TestGeneratedTouches: what the generator calls a good touch gets no code, and its dry and wet ones have thinner and thicker
// ridges.
func TestGeneratedTouches(t *testing.T) {
	p := built(t)
	fixed := func(v float64) synth.Range { return synth.Range{Min: v, Max: v} }
	share := func(pressure, moisture float64) (shares []float32, codes []finger.Guidance) {
		r := p.NewResult()
		for seed := range uint64(5) {
			im := touch(t, 7000+seed, 1, func(o *synth.ImpressionOptions) { o.Pressure, o.Moisture = fixed(pressure), fixed(moisture) })
			process(t, p, r, fingerprint{im.Width, im.Height, im.Gray})
			shares = append(shares, r.Quality.Components[finger.Moisture].Measured)
			codes = append(codes, r.Quality.Components.Guidance())
		}
		return shares, codes
	}
	dry, _ := share(-0.9, -1)
	fine, codes := share(0, 0)
	wet, _ := share(0.9, 1)
	t.Log(dry, fine, wet, codes)
	for i := range fine {
		if !(dry[i] < fine[i] && fine[i] < wet[i]) || codes[i] != finger.NoGuidance {
			t.Errorf("finger %d: ridges %.2f dry, %.2f, %.2f wet, code %q", i, dry[i], fine[i], wet[i], codes[i])
		}
	}
}
