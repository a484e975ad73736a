package minutiae

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// print is a made-up finger: places, angles and descriptions.
type print struct {
	minutiae     []Minutia
	descriptions [][]float32
}

func randomPrint(r *rand.Rand, n int) print {
	var p print
	for range n {
		p.minutiae = append(p.minutiae, Minutia{X: 80 + 250*r.Float32(), Y: 80 + 330*r.Float32(), Angle: 2 * math.Pi * r.Float32(), Quality: r.Float32()})
		d := make([]float32, DescriptorBytes)
		for i := range d {
			d[i] = float32(r.NormFloat64())
		}
		p.descriptions = append(p.descriptions, d)
	}
	return p
}

// touch is another impression: turned, moved, stretched, with noise in places, angles and descriptions, and only some of
// the minutiae, beside some that are not there.
func (p print) touch(r *rand.Rand, turn, dx, dy, noise float64, keep float64, false_ int) []int8 {
	row := make([]int8, Bytes)
	Clear(row)
	sin, cos := math.Sincos(turn)
	for i, m := range p.minutiae {
		if r.Float64() > keep {
			continue
		}
		x, y := float64(m.X)-210, float64(m.Y)-250
		x, y = x*1.02, y*0.98
		m.X = float32(x*cos+y*sin+210+dx) + float32(r.NormFloat64()*2*noise)
		m.Y = float32(-x*sin+y*cos+250+dy) + float32(r.NormFloat64()*2*noise)
		m.Angle += float32(turn + r.NormFloat64()*0.08*noise)
		d := make([]float32, DescriptorBytes)
		for k := range d {
			d[k] = p.descriptions[i][k] + float32(r.NormFloat64()*0.5*noise)
		}
		Append(row, m, d)
	}
	other := randomPrint(r, false_)
	for i, m := range other.minutiae {
		Append(row, m, other.descriptions[i])
	}
	return row
}

func score(t testing.TB, a, b []int8) float32 {
	t.Helper()
	m := NewMatcher()
	if err := m.SetProbe(a); err != nil {
		t.Fatal(err)
	}
	return m.Score(b)
}

func TestMatedAreFarFromNonMated(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 50 {
		p, q := randomPrint(r, 40), randomPrint(r, 40)
		a := p.touch(r, 0, 0, 0, 1, 0.8, 5)
		b := p.touch(r, (r.Float64()-0.5)*2, r.Float64()*40, r.Float64()*40, 1, 0.6, 10)
		c := q.touch(r, (r.Float64()-0.5)*2, 0, 0, 1, 0.8, 5)
		if mated, other := score(t, a, b), score(t, a, c); mated < 0.45 || other > 0.1 {
			t.Errorf("print %d: mated %.3f, non-mated %.3f", i, mated, other)
		}
	}
}

func TestScoreIsSymmetricAndBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 30 {
		p := randomPrint(r, 30)
		a, b := p.touch(r, 0.3, 5, 5, 1.5, 0.7, 8), p.touch(r, -0.4, 0, 9, 1.5, 0.7, 8)
		ab, ba := score(t, a, b), score(t, b, a)
		if math.Abs(float64(ab-ba)) > 0.02 || ab < 0 || ab >= 1 {
			t.Errorf("%.4f one way, %.4f the other", ab, ba)
		}
		if self := score(t, a, a); self < ab {
			t.Errorf("a print is more like another (%.3f) than like itself (%.3f)", ab, self)
		}
	}
}

func TestPlaceCounts(t *testing.T) {
	// The same descriptions at shuffled places are not the same finger.
	r := rand.New(rand.NewPCG(5, 6))
	p := randomPrint(r, 40)
	q := print{descriptions: p.descriptions}
	for range p.minutiae {
		q.minutiae = append(q.minutiae, randomPrint(r, 1).minutiae...)
	}
	a, b, c := p.touch(r, 0, 0, 0, 0.5, 1, 0), q.touch(r, 0, 0, 0, 0.5, 1, 0), p.touch(r, 0.5, 9, 9, 0.5, 1, 0)
	if same, shuffled := score(t, a, c), score(t, a, b); shuffled > same/3 {
		t.Errorf("shuffled places score %.3f, true ones %.3f", shuffled, same)
	}
}

func TestRowsOfNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	full := randomPrint(r, 90).touch(r, 0, 0, 0, 0, 1, 0)
	if Count(full) != Max {
		t.Errorf("a row holds %d minutiae of 90, want %d", Count(full), Max)
	}
	empty := make([]int8, Bytes)
	Clear(empty)
	if s := score(t, full, empty); s != 0 {
		t.Errorf("a print scores %v with an empty row", s)
	}
	if s := score(t, empty, empty); s != 0 {
		t.Errorf("two empty rows score %v", s)
	}
	if s := NewMatcher().Score(full); s != 0 {
		t.Errorf("a matcher without a probe scores %v", s)
	}
}

func TestCheckRefuses(t *testing.T) {
	good := make([]int8, Bytes)
	Clear(good)
	change := func(at int, v int8) []int8 {
		row := append([]int8(nil), good...)
		row[at] = v
		return row
	}
	for name, row := range map[string][]int8{
		"nothing": nil, "short": good[1:], "long": append(good[:Bytes:Bytes], 0), "version": change(0, 2),
		"too many": change(1, Max+1), "negative": change(1, -1),
	} {
		if err := Check(row); !errors.Is(err, ErrRow) {
			t.Errorf("%s: %v", name, err)
		}
		if err := NewMatcher().SetProbe(row); !errors.Is(err, ErrRow) {
			t.Errorf("%s as a probe: %v", name, err)
		}
	}
	if err := Check(good); err != nil {
		t.Error(err)
	}
}

func TestAppendRefuses(t *testing.T) {
	row := make([]int8, Bytes)
	Clear(row)
	one := make([]float32, DescriptorBytes)
	one[3] = 2
	nan := append([]float32(nil), one...)
	nan[0] = float32(math.NaN())
	for name, bad := range map[string]func() bool{
		"left":     func() bool { return Append(row, Minutia{X: -1}, one) },
		"far":      func() bool { return Append(row, Minutia{X: 2047}, one) },
		"no place": func() bool { return Append(row, Minutia{X: float32(math.NaN())}, one) },
		"zeros":    func() bool { return Append(row, Minutia{}, make([]float32, DescriptorBytes)) },
		"nan":      func() bool { return Append(row, Minutia{}, nan) },
		"short":    func() bool { return Append(row, Minutia{}, one[1:]) },
	} {
		if bad() || Count(row) != 0 {
			t.Errorf("%s was taken", name)
		}
	}
	in := Minutia{X: 100.5, Y: 7.25, Angle: 4, Quality: 0.5}
	if !Append(row, in, one) || Count(row) != 1 {
		t.Fatal("a good minutia was refused")
	}
	out := At(row, 0)
	if out.X != in.X || out.Y != in.Y || math.Abs(float64(out.Angle-in.Angle)) > math.Pi/255 || math.Abs(float64(out.Quality-in.Quality)) > 0.003 {
		t.Errorf("%v came back as %v", in, out)
	}
	if d := Descriptor(row, 0); d[3] != 127 || d[0] != 0 {
		t.Errorf("description came back as %v", d[:4])
	}
}

// TestAppendWhole: what Quantise gives is stored as Append stores the description that it came from.
func TestAppendWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	a, b := make([]int8, Bytes), make([]int8, Bytes)
	Clear(a)
	Clear(b)
	quantised, whole := make([]int8, DescriptorBytes), make([]float32, DescriptorBytes)
	for i := range Max {
		d := make([]float32, DescriptorBytes)
		for k := range d {
			d[k] = float32(r.NormFloat64())
		}
		if !Quantise(quantised, d) {
			t.Fatal("a description was refused")
		}
		for k, v := range quantised {
			whole[k] = float32(v)
		}
		m := Minutia{X: float32(20 * i), Y: float32(i), Angle: 1, Quality: 0.5}
		if !Append(a, m, d) || !AppendWhole(b, m, whole) {
			t.Fatalf("minutia %d was refused", i)
		}
	}
	if !slices.Equal(a, b) {
		t.Error("the rows differ")
	}
	if AppendWhole(b, Minutia{}, whole) {
		t.Error("a full row took another")
	}
	Clear(b)
	if AppendWhole(b, Minutia{}, make([]float32, DescriptorBytes)) || AppendWhole(b, Minutia{}, whole[1:]) || AppendWhole(b, Minutia{X: -1}, whole) || Count(b) != 0 {
		t.Error("zeros, a short description or a minutia outside were taken")
	}
}

func TestMask(t *testing.T) {
	row := make([]int8, Bytes)
	Clear(row)
	SetMask(row, MaskColumns-1, MaskRows-1)
	SetMask(row, 3, 5)
	n := 0
	for r := range MaskRows {
		for c := range MaskColumns {
			if Mask(row, c, r) {
				n++
			}
		}
	}
	if n != 2 || !Mask(row, 3, 5) || !Mask(row, MaskColumns-1, MaskRows-1) || Count(row) != 0 {
		t.Errorf("%d cells are set", n)
	}
}

func TestWipe(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 1))
	a := randomPrint(r, 30).touch(r, 0, 0, 0, 1, 1, 0)
	m := NewMatcher()
	if err := m.SetProbe(a); err != nil {
		t.Fatal(err)
	}
	m.Score(a)
	m.Wipe()
	if m.row != nil || m.probe != (side{}) || m.other != (side{}) {
		t.Error("something of the probe is left")
	}
	for _, p := range m.pairs[:cap(m.pairs)] {
		if p != (pair{}) {
			t.Fatal("pairs are left")
		}
	}
}

func TestScoreAllocatesNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 1))
	p := randomPrint(r, 60)
	a, b := p.touch(r, 0, 0, 0, 1, 1, 0), p.touch(r, 0.2, 0, 0, 1, 1, 0)
	m := NewMatcher()
	if n := testing.AllocsPerRun(20, func() { m.SetProbe(a); m.Score(b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzScore: no row, however made, reads out of bounds or gives a score outside 0 to 1.
func FuzzScore(f *testing.F) {
	r := rand.New(rand.NewPCG(4, 4))
	p := randomPrint(r, 40)
	good := p.touch(r, 0.1, 3, 3, 1, 0.9, 4)
	raw := make([]byte, Bytes)
	for i, v := range good {
		raw[i] = byte(v)
	}
	f.Add(raw)
	f.Add(raw[:100])
	f.Add(make([]byte, Bytes))
	f.Fuzz(func(t *testing.T, data []byte) {
		row := make([]int8, len(data))
		for i, v := range data {
			row[i] = int8(v)
		}
		m := NewMatcher()
		if m.SetProbe(row) == nil {
			if s := m.Score(row); !(s >= 0 && s < 1) {
				t.Errorf("score %v", s)
			}
		}
		if err := m.SetProbe(good); err != nil {
			t.Fatal(err)
		}
		if s := m.Score(row); !(s >= 0 && s < 1) {
			t.Errorf("score %v", s)
		}
	})
}

func BenchmarkScore(b *testing.B) {
	r := rand.New(rand.NewPCG(2, 2))
	p, q := randomPrint(r, 45), randomPrint(r, 45)
	a, mated, other := p.touch(r, 0, 0, 0, 1, 0.9, 4), p.touch(r, 0.2, 0, 0, 1, 0.9, 4), q.touch(r, 0.2, 0, 0, 1, 0.9, 4)
	m := NewMatcher()
	if err := m.SetProbe(a); err != nil {
		b.Fatal(err)
	}
	for name, row := range map[string][]int8{"mated": mated, "non-mated": other} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m.Score(row)
			}
		})
	}
}
