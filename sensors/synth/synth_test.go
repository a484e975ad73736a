package synth

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"os/exec"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// fingers makes each finger once for all tests.
var fingers = struct {
	sync.Mutex
	made map[[2]uint64]*Finger
	gen  *Generator
}{made: map[[2]uint64]*Finger{}}

func finger(t testing.TB, class Class, seed uint64) *Finger {
	t.Helper()
	fingers.Lock()
	defer fingers.Unlock()
	if fingers.gen == nil {
		fingers.gen = NewGenerator()
	}
	key := [2]uint64{uint64(class), seed}
	if fingers.made[key] == nil {
		f, err := fingers.gen.Finger(seed, Options{Class: class})
		if err != nil {
			t.Fatal(err)
		}
		fingers.made[key] = f
	}
	return fingers.made[key]
}

func impression(t testing.TB, f *Finger, seed uint64, o ImpressionOptions) *Impression {
	t.Helper()
	fingers.Lock()
	defer fingers.Unlock()
	if fingers.gen == nil {
		fingers.gen = NewGenerator()
	}
	var im Impression
	if err := fingers.gen.Impression(f, seed, o, &im); err != nil {
		t.Fatal(err)
	}
	return &im
}

func TestNumbersAgreeWithMath(t *testing.T) {
	for i := -4000; i <= 4000; i++ {
		x := float64(i) * 0.0173
		if d := math.Abs(sin(x) - math.Sin(x)); d > 1e-7 {
			t.Fatalf("sin(%g) is off by %g", x, d)
		}
		if d := math.Abs(cos(x) - math.Cos(x)); d > 1e-7 {
			t.Fatalf("cos(%g) is off by %g", x, d)
		}
		if d := math.Abs(exp(x)/math.Exp(x) - 1); d > 1e-9 {
			t.Fatalf("exp(%g) is off by %g", x, d)
		}
		a := atan2(3*math.Sin(x), 3*math.Cos(x))
		if d := math.Abs(math.Remainder(a-x, 2*math.Pi)); d > 2e-5 {
			t.Fatalf("atan2 at %g is off by %g", x, d)
		}
		if w := wrap(x, math.Pi); w < 0 || w >= math.Pi || math.Abs(math.Remainder(w-x, math.Pi)) > 1e-9 {
			t.Fatalf("wrap(%g) is %g", x, w)
		}
	}
	if exp(-1e9) != 0 || atan2(0, 0) != 0 || wrap(-1e-300, math.Pi) != 0 {
		t.Error("a limit is not met")
	}
}

// index is the Poincaré index in half turns around a small square of the produced field.
func index(f *Finger, cx, cy, radius float64) int {
	const steps = 32
	sum, before := 0.0, 0.0
	for i := 0; i <= steps; i++ {
		a := 2 * math.Pi * float64(i) / steps
		now := f.Orientation(cx+radius*math.Cos(a), cy-radius*math.Sin(a))
		if i > 0 {
			sum += math.Remainder(now-before, math.Pi)
		}
		before = now
	}
	return int(math.Round(sum / math.Pi))
}

func TestClassesHaveTheirSingularPoints(t *testing.T) {
	want := map[Class][2]int{Arch: {0, 0}, TentedArch: {1, 1}, LeftLoop: {1, 1}, RightLoop: {1, 1}, Whorl: {2, 2}, DoubleLoop: {2, 2}}
	for class, counts := range want {
		for seed := range uint64(2) {
			f := &Finger{Seed: seed, Class: class, width: 400, height: 512}
			f.field = drawField(newRandom(seed, fieldStream), class, 400, 512, 9)
			cores, deltas := 0, 0
			for y := 20.0; y < 490; y += 8 {
				for x := 10.0; x < 390; x += 8 {
					switch index(f, x+4.013, y+4.017, 5.66) {
					case 1:
						cores++
					case -1:
						deltas++
					}
				}
			}
			// the circles overlap: every pole is met at least once
			if (cores > 0) != (counts[0] > 0) || (deltas > 0) != (counts[1] > 0) {
				t.Errorf("%v %d: cores met %d times, deltas %d times", class, seed, cores, deltas)
			}
			for _, p := range f.field.poles {
				want := 1
				if p.Delta {
					want = -1
				}
				if got := index(f, p.X, p.Y, 3); got != want {
					t.Errorf("%v %d: index %d at %+v", class, seed, got, p.Singularity)
				}
			}
			if n := len(f.field.poles); n != counts[0]+counts[1] {
				t.Errorf("%v has %d singular points", class, n)
			}
			if whole := index(f, 200, 256, 190); whole != 0 {
				t.Errorf("%v %d: the whole print has index %d", class, seed, whole)
			}
		}
	}
}

func TestLoopsOpenToTheirSide(t *testing.T) {
	for seed := range uint64(20) {
		for class, side := range map[Class]float64{LeftLoop: 1, RightLoop: -1} {
			poles := drawField(newRandom(seed, fieldStream), class, 400, 512, 9).poles
			if d := (poles[1].X - poles[0].X) * side; d <= 0 || poles[1].Y <= poles[0].Y {
				t.Errorf("%v %d: delta at %+v, core at %+v", class, seed, poles[1].Point, poles[0].Point)
			}
		}
	}
}

func TestClassesComeAtTheirFrequencies(t *testing.T) {
	const n = 20000
	var count [classes]int
	for seed := range uint64(n) {
		count[drawClass(newRandom(seed, classStream))]++
	}
	for class, percent := range map[Class]float64{AnyClass: 0, Arch: 3.7, TentedArch: 2.9, LeftLoop: 33.8, RightLoop: 31.7, Whorl: 23.25, DoubleLoop: 4.65} {
		if got := 100 * float64(count[class]) / n; math.Abs(got-percent) > 1.2 {
			t.Errorf("%v: %.1f %%, want %.1f", class, got, percent)
		}
	}
	for c := AnyClass; c < classes; c++ {
		text, err := c.MarshalText()
		var back Class
		if err != nil || back.UnmarshalText(text) != nil || back != c {
			t.Errorf("%v does not survive text", c)
		}
	}
	var c Class
	if c.UnmarshalText([]byte("spiral")) == nil {
		t.Error("an unknown class is read")
	}
	if _, err := Class(99).MarshalText(); err == nil {
		t.Error("an unknown class is written")
	}
}

// measured is the ridge period around a place, from the zero crossings along the normal of the ridges.
func measured(f *Finger, x, y float64) float64 {
	a := f.Orientation(x, y)
	nx, ny := math.Sin(a), math.Cos(a)
	first, last, n := 0.0, 0.0, 0
	before := f.ridge(float32(x-24*nx), float32(y-24*ny))
	for s := -23.75; s <= 24; s += 0.25 {
		v := f.ridge(float32(x+s*nx), float32(y+s*ny))
		if before < 0 && v >= 0 {
			if n++; n == 1 {
				first = s
			}
			last = s
		}
		before = v
	}
	if n < 3 {
		return 0
	}
	return (last - first) / float64(n-1)
}

func TestRidgesHaveTheirPeriod(t *testing.T) {
	for _, seed := range []uint64{3, 4} {
		f := finger(t, AnyClass, seed)
		close, all := 0, 0
		for y := 60.0; y < 460; y += 20 {
			for x := 60.0; x < 340; x += 20 {
				if !f.insideMargin(x, y, 40) {
					continue
				}
				all++
				got, want := measured(f, x, y), f.Period(x, y)
				if want < minPeriod || want > maxPeriod {
					t.Errorf("period %g at (%g, %g)", want, x, y)
				}
				if math.Abs(got-want) < 0.15*want {
					close++
				}
			}
		}
		if close < all*4/5 {
			t.Errorf("finger %d: the period is as promised in %d of %d places", seed, close, all)
		}
	}
}

func TestFingersHaveAsManyMinutiaeAsPeople(t *testing.T) {
	g := NewGenerator()
	for class := Arch; class < classes; class++ { // a quarter of the usual ground, for speed
		f, err := g.Finger(5, Options{Class: class, Width: 200, Height: 256})
		if err != nil {
			t.Fatal(err)
		}
		forks := 0
		for i, m := range f.Minutiae {
			if m.ID != i || !f.insideMargin(m.X, m.Y, edgePixels) || m.Angle < 0 || m.Angle >= 2*math.Pi {
				t.Fatalf("%v: minutia %+v", class, m)
			}
			if m.Fork {
				forks++
			}
		}
		if n := len(f.Minutiae); n < 5 || n > 40 || forks == 0 || forks == n {
			t.Errorf("%v: %d minutiae, %d of them forks", class, n, forks)
		}
	}
}

// TestMinutiaeOfDrawnLines checks sort, place and direction on ridges drawn by hand.
func TestMinutiaeOfDrawnLines(t *testing.T) {
	var b bitmap
	b.resize(60, 60)
	for x := 5; x <= 30; x++ { // an ending at (30, 20); its ridge lies to the left
		b.data[b.index(x, 20)] = 1
	}
	for x := 5; x <= 30; x++ { // a fork at (30, 45); its valley opens to the right
		b.data[b.index(x, 45)] = 1
	}
	for k := 1; k <= 13; k++ {
		b.data[b.index(30+k, 45-k)], b.data[b.index(30+k, 45+k)] = 1, 1
	}
	inside := func(x, y float64) bool { return x > 10 && x < 40 }
	got := extract(&b, inside, func(x, y float64) float64 { return 0.1 })
	want := []Minutia{{X: 30, Y: 20, Angle: math.Pi + 0.1, ID: 0}, {X: 30, Y: 45, Angle: 0.1, Fork: true, ID: 1}}
	if len(got) != 2 {
		t.Fatalf("found %+v", got)
	}
	for i := range want {
		if math.Abs(got[i].Angle-want[i].Angle) > 1e-9 {
			t.Errorf("angle %g, want %g", got[i].Angle, want[i].Angle)
		}
		got[i].Angle = want[i].Angle
		if got[i] != want[i] {
			t.Errorf("found %+v, want %+v", got[i], want[i])
		}
	}
}

// severe has every range at one of its ends.
func severe(low bool) ImpressionOptions {
	end := func(lo, hi float64) Range {
		if low {
			return Range{lo, lo}
		}
		return Range{hi, hi}
	}
	return ImpressionOptions{Width: 200, Height: 230, DPI: map[bool]float64{true: 250, false: 1000}[low],
		RotationDegrees: end(-180, 180), ShiftMM: end(0, 3), OffCentreMM: end(0, 4), ContactMM: end(6, 16), ContactAspect: end(0.7, 2),
		TractionMM: end(0, 1), TorqueDegrees: end(-10, 10), WobbleMM: end(0, 0.3), Pressure: end(-1, 1), Moisture: end(-1, 1),
		Scars: end(0, 20), Residue: end(0, 1), Background: end(100, 255), Shading: end(0, 80), Contrast: end(0.05, 1),
		Blur: end(0, 2), Noise: end(0, 64)}
}

func TestTransformInverts(t *testing.T) {
	f := finger(t, AnyClass, 3)
	hardest := severe(false)
	hardest.DPI = 500
	for name, o := range map[string]ImpressionOptions{"easy": Preset(Easy), "hard": Preset(Hard), "extreme": hardest, "low": severe(true)} {
		for seed := range uint64(20) {
			tr := o.transform(f, newRandom(seed, 9))
			for y := 0.0; y < float64(o.Height); y += 16 {
				for x := 0.0; x < float64(o.Width); x += 16 {
					mx, my := tr.ToMaster(x, y)
					bx, by := tr.ToPicture(mx, my)
					if d := math.Hypot(bx-x, by-y); !(d < 0.02/tr.Scale) {
						t.Fatalf("%s %d: (%g, %g) comes back %g pixels off", name, seed, x, y, d)
					}
				}
			}
		}
	}
}

// shared is the part of a's minutiae that b shows too where they should be, both carried to the master.
func shared(a, b *Impression) (hits, expected int) {
	for _, m := range a.Truth.Minutiae {
		mx, my := a.Truth.Transform.ToMaster(m.X, m.Y)
		x, y := b.Truth.Transform.ToPicture(mx, my)
		if !deepInside(&b.Truth.Mask, x, y, 6) {
			continue
		}
		expected++
		for _, n := range b.Truth.Minutiae {
			nx, ny := b.Truth.Transform.ToMaster(n.X, n.Y)
			turn := (m.Angle - a.Truth.Transform.Rotation) - (n.Angle - b.Truth.Transform.Rotation)
			if math.Hypot(nx-mx, ny-my) < 4 && math.Abs(math.Remainder(turn, 2*math.Pi)) < 0.6 && m.Fork == n.Fork {
				hits++
				break
			}
		}
	}
	return hits, expected
}

func deepInside(m *Mask, x, y, by float64) bool {
	for _, d := range [][2]float64{{-by, -by}, {by, -by}, {-by, by}, {by, by}} {
		if !m.At(int(x+d[0]), int(y+d[1])) {
			return false
		}
	}
	return true
}

func TestImpressionsOfOneFingerShareMinutiae(t *testing.T) {
	for _, severity := range []Severity{Easy, Normal, Hard} {
		var same, sameOf, other, otherOf int
		for _, seed := range []uint64{3, 4} {
			a := impression(t, finger(t, AnyClass, seed), 1, Preset(severity))
			b := impression(t, finger(t, AnyClass, seed), 2, Preset(severity))
			c := impression(t, finger(t, AnyClass, 7-seed), 1, Preset(severity))
			h, n := shared(a, b)
			same, sameOf = same+h, sameOf+n
			h, n = shared(a, c)
			other, otherOf = other+h, otherOf+n
		}
		if sameOf < 15 || same*10 < sameOf*9 {
			t.Errorf("severity %d: one finger shares %d of %d", severity, same, sameOf)
		}
		if otherOf < 10 || other*10 > otherOf*2 {
			t.Errorf("severity %d: two fingers share %d of %d", severity, other, otherOf)
		}
	}
}

// TestMinutiaeAreInThePicture thins an easy picture as anybody would and looks for the true minutiae there: the truth is
// about the pixels, not only about the master.
func TestMinutiaeAreInThePicture(t *testing.T) {
	g := NewGenerator()
	hits, all := 0, 0
	for _, seed := range []uint64{3, 4} {
		o := Preset(Easy)
		o.Noise = Range{}
		im := impression(t, finger(t, AnyClass, seed), 7, o)
		var b bitmap
		b.resize(im.Width, im.Height)
		for at, v := range im.Gray {
			if v < 140 {
				b.data[b.index(at%im.Width, at/im.Width)] = 1
			}
		}
		g.thin(&b)
		inside := func(x, y float64) bool { return deepInside(&im.Truth.Mask, x, y, 8) }
		found := extract(&b, inside, func(x, y float64) float64 {
			return float64(im.Truth.Orientation[int(y)/CellPixels*im.Truth.Columns+int(x)/CellPixels]) * math.Pi / 180
		})
		for _, m := range im.Truth.Minutiae {
			if !inside(m.X, m.Y) {
				continue
			}
			all++
			for _, n := range found {
				if math.Hypot(m.X-n.X, m.Y-n.Y) < 8 && math.Cos(m.Angle-n.Angle) > 0.85 {
					hits++
					break
				}
			}
		}
	}
	if all < 20 || hits*10 < all*8 {
		t.Errorf("%d of %d true minutiae are in the pictures", hits, all)
	}
}

// TestOrientationIsThatOfThePicture compares the truth with the structure tensor of the pixels.
func TestOrientationIsThatOfThePicture(t *testing.T) {
	for _, severity := range []Severity{Easy, Normal} {
		im := impression(t, finger(t, AnyClass, 3), 4, Preset(severity))
		good, all := 0, 0
		for i, degrees := range im.Truth.Orientation {
			x0, y0 := i%im.Truth.Columns*CellPixels, i/im.Truth.Columns*CellPixels
			if degrees == NoRidge || !deepInside(&im.Truth.Mask, float64(x0+4), float64(y0+4), 12) {
				continue
			}
			var xx, yy, xy float64
			for y := y0 - 4; y < y0+12; y++ {
				for x := x0 - 4; x < x0+12; x++ {
					at := y*im.Width + x
					gx := float64(im.Gray[at+1]) - float64(im.Gray[at-1])
					gy := float64(im.Gray[at-im.Width]) - float64(im.Gray[at+im.Width])
					xx, yy, xy = xx+gx*gx, yy+gy*gy, xy+gx*gy
				}
			}
			measured := math.Atan2(2*xy, xx-yy)/2 + math.Pi/2
			all++
			if math.Abs(math.Remainder(measured-float64(degrees)*math.Pi/180, math.Pi)) < 0.2 {
				good++
			}
		}
		if all < 100 || good*10 < all*9 {
			t.Errorf("severity %d: orientation agrees in %d of %d cells", severity, good, all)
		}
	}
}

func TestMaskIsWhereTheInkIs(t *testing.T) {
	o := Preset(Easy)
	o.Noise, o.Shading, o.Blur = Range{}, Range{}, Range{}
	im := impression(t, finger(t, AnyClass, 4), 1, o)
	var in, out, dark float64
	for y := range im.Height {
		for x := range im.Width {
			v := float64(im.Gray[y*im.Width+x])
			if !im.Truth.Mask.At(x, y) {
				if out++; v < im.Truth.Condition.Background-2 {
					t.Fatalf("ink %g outside the mask at (%d, %d)", v, x, y)
				}
				continue
			}
			if in++; v < 128 {
				dark++
			}
		}
	}
	if share := in / (in + out); share < 0.4 || share > 0.95 {
		t.Errorf("the mask covers %.2f of the picture", share)
	}
	if dark/in < 0.3 || dark/in > 0.65 {
		t.Errorf("%.2f of the mask is ridge", dark/in)
	}
	if im.Truth.Mask.At(-1, 0) || im.Truth.Mask.At(0, im.Height) {
		t.Error("the mask reaches beyond the picture")
	}
}

func TestPressureAndMoistureThickenRidges(t *testing.T) {
	f := finger(t, AnyClass, 4)
	ink := func(change func(*ImpressionOptions)) (dark int) {
		o := Preset(Easy)
		change(&o)
		for _, v := range impression(t, f, 1, o).Gray {
			if v < 128 {
				dark++
			}
		}
		return dark
	}
	for name, ends := range map[string][2]func(*ImpressionOptions){
		"pressure": {func(o *ImpressionOptions) { o.Pressure = Range{-1, -1} }, func(o *ImpressionOptions) { o.Pressure = Range{1, 1} }},
		"moisture": {func(o *ImpressionOptions) { o.Moisture = Range{-1, -1} }, func(o *ImpressionOptions) { o.Moisture = Range{1, 1} }},
		"scars":    {func(o *ImpressionOptions) { o.Scars = Range{20, 20} }, func(*ImpressionOptions) {}},
	} {
		if little, much := ink(ends[0]), ink(ends[1]); float64(little)*1.1 > float64(much) {
			t.Errorf("%s: %d dark pixels, then %d", name, little, much)
		}
	}
}

func TestExtremes(t *testing.T) {
	g := NewGenerator()
	var im Impression
	for _, o := range []Options{
		{Width: 128, Height: 128, Period: Range{12, 12}, Seeds: 50, Scars: Range{20, 20}, Pores: Range{1, 1}},
		{Width: 131, Height: 333, Period: Range{7, 7}, Seeds: 0.01, Class: DoubleLoop},
	} {
		f, err := g.Finger(1, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, low := range []bool{true, false} {
			for seed := range uint64(5) {
				if err := g.Impression(f, seed, severe(low), &im); err != nil {
					t.Fatal(err)
				}
				// encoding/json refuses what is not a number
				if _, err := json.Marshal(im.Truth); err != nil {
					t.Fatal(err)
				}
				if len(im.Gray) != im.Width*im.Height {
					t.Fatalf("%d bytes for %d x %d", len(im.Gray), im.Width, im.Height)
				}
				for _, m := range im.Truth.Minutiae {
					if !im.Truth.Mask.At(int(m.X+0.5), int(m.Y+0.5)) {
						t.Errorf("minutia %+v lies outside the mask", m)
					}
				}
			}
		}
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	nan := math.NaN()
	for i, o := range []Options{{Class: 77}, {Width: 100}, {Height: 4096}, {Period: Range{2, 9}}, {Period: Range{9, 8}},
		{Seeds: nan}, {Seeds: -1}, {Scars: Range{0, nan}}, {Pores: Range{0, 2}}} {
		if f, err := NewFinger(1, o); err == nil || f != nil {
			t.Errorf("finger options %d are taken", i)
		}
	}
	f := finger(t, AnyClass, 3)
	for i, change := range []func(*ImpressionOptions){
		func(o *ImpressionOptions) { *o = ImpressionOptions{} },
		func(o *ImpressionOptions) { o.Width = 5000 },
		func(o *ImpressionOptions) { o.DPI = nan },
		func(o *ImpressionOptions) { o.Noise = Range{-1, 0} },
		func(o *ImpressionOptions) { o.ContactMM = Range{12, 11} },
		func(o *ImpressionOptions) { o.Moisture.Max = math.Inf(1) },
	} {
		o := Preset(Normal)
		change(&o)
		if im, err := f.Impression(1, o); err == nil || im != nil {
			t.Errorf("impression options %d are taken", i)
		}
	}
}

func TestResolutionScales(t *testing.T) {
	f := finger(t, AnyClass, 4)
	o := Preset(Easy)
	a := impression(t, f, 3, o)
	o.Width, o.Height, o.DPI = 512, 640, 1000
	b := impression(t, f, 3, o)
	for _, m := range a.Truth.Minutiae {
		for _, n := range b.Truth.Minutiae {
			if m.ID == n.ID && math.Hypot(2*m.X+0.5-n.X, 2*m.Y+0.5-n.Y) > 0.2 {
				t.Errorf("minutia %d is at (%.2f, %.2f), at twice the resolution at (%.2f, %.2f)", m.ID, m.X, m.Y, n.X, n.Y)
			}
		}
	}
	if len(a.Truth.Minutiae) == 0 || len(a.Truth.Minutiae) != len(b.Truth.Minutiae) {
		t.Errorf("%d minutiae, then %d", len(a.Truth.Minutiae), len(b.Truth.Minutiae))
	}
}

func TestTruthSurvivesJSON(t *testing.T) {
	im := impression(t, finger(t, AnyClass, 3), 4, Preset(Hard))
	data, err := json.Marshal(im.Truth)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 32<<10 {
		t.Errorf("the truth is %d bytes", len(data))
	}
	var back Truth
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(im.Truth, back) {
		t.Errorf("%+v came back as %+v", im.Truth, back)
	}
	if x, y := back.Transform.ToMaster(10, 20); x == 0 && y == 0 {
		t.Error("the transform that came back does not work")
	}
	if json.Unmarshal([]byte(`{"transform":{"scale":"x"}}`), &back) == nil {
		t.Error("a broken transform is read")
	}
}

func digest(f *Finger, ims ...*Impression) string {
	h := sha256.New()
	h.Write(f.ridges)
	for _, im := range ims {
		h.Write(im.Gray)
		truth, _ := json.Marshal(im.Truth)
		h.Write(truth)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

func TestSameSeedsGiveSameBytes(t *testing.T) {
	want := map[uint64]string{3: "6419e5de1977d8a5", 4: "0e7e78ed20b1489f"}
	g := NewGenerator()
	for seed, golden := range want {
		f := finger(t, AnyClass, seed)
		var used Impression // its memory and that of the generator have been used before
		if err := g.Impression(finger(t, AnyClass, 7-seed), 1, severe(false), &used); err != nil {
			t.Fatal(err)
		}
		if err := g.Impression(f, 2, Preset(Normal), &used); err != nil {
			t.Fatal(err)
		}
		hard := impression(t, f, 9, Preset(Hard))
		got := digest(f, &used, hard)
		if got != golden {
			t.Errorf("finger %d: %s, want %s; whoever changes the pictures on purpose changes this too", seed, got, golden)
		}
		if other := impression(t, f, 3, Preset(Normal)); reflect.DeepEqual(other.Gray, used.Gray) {
			t.Error("two impressions are the same")
		}
	}
}

func TestGeneratorsKeepNothing(t *testing.T) {
	o := Options{Width: 160, Height: 160}
	f, err := NewFinger(8, o)
	if err != nil {
		t.Fatal(err)
	}
	im, err := f.Impression(1, Preset(Hard))
	if err != nil {
		t.Fatal(err)
	}
	finger(t, AnyClass, 3) // the shared generator has made something larger
	again, err := fingers.gen.Finger(8, o)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := digest(again, impression(t, again, 1, Preset(Hard))), digest(f, im); got != want || !reflect.DeepEqual(f, again) {
		t.Errorf("a used generator makes %s, a fresh one %s", got, want)
	}
}

// TestNoFusedArithmetic reads the code for arm64, where the compiler may fuse a product into a sum and so change bytes.
func TestNoFusedArithmetic(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for arm64; run without -short")
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-gcflags=-S", "-o", t.TempDir()+"/synth.a", ".")
	cmd.Env = append(cmd.Environ(), "GOARCH=arm64", "GOOS=linux", "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !strings.Contains(string(out), "FMULD") {
		t.Fatal("the listing holds no arithmetic; has its form changed?")
	}
	for line := range strings.Lines(string(out)) {
		for _, op := range []string{"FMADD", "FMSUB", "FNMADD", "FNMSUB"} {
			if strings.Contains(line, op) {
				t.Error("fused: " + strings.TrimSpace(line))
			}
		}
	}
}

func TestMemoryIsUsedAgain(t *testing.T) {
	g, f := NewGenerator(), finger(t, AnyClass, 3)
	var im Impression
	seed := uint64(0)
	allocs := testing.AllocsPerRun(8, func() {
		seed++
		if err := g.Impression(f, seed, Preset(Hard), &im); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 10 {
		t.Errorf("an impression takes %g allocations", allocs)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 16 {
		if err := g.Impression(f, 1, Preset(Hard), &im); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if per := (after.TotalAlloc - before.TotalAlloc) / 16; per > 8<<10 {
		t.Errorf("an impression takes %d bytes", per)
	}
}

func BenchmarkFinger(b *testing.B) {
	g := NewGenerator()
	for i := 0; b.Loop(); i++ {
		if _, err := g.Finger(uint64(i), Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkImpression(b *testing.B) {
	for name, severity := range map[string]Severity{"easy": Easy, "normal": Normal, "hard": Hard} {
		b.Run(name, func(b *testing.B) {
			g, f := NewGenerator(), finger(b, AnyClass, 3)
			o := Preset(severity)
			o.Width, o.Height = 256, 256
			var im Impression
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := g.Impression(f, uint64(i), o, &im); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
