package finger

import "math"

// Components are quality components of a print, 0 (worst) to 100, after the terms of ISO/IEC 29794-4 (finger image data). The
// formulae are ours and are given beside each: they guide the person at a reader.
type Components struct {
	// Coverage: square millimetres of legible finger, 90 (areaHigh) and more are 100.
	Coverage uint8
	// RidgeClarity: how sure the network is of the ridges' direction, Quality.Legibility times 100.
	RidgeClarity uint8
	// Minutiae: how many there are, Quality.Minutiae times 100.
	Minutiae uint8
	// Moisture: 100 where ridges and valleys are as wide, falling as ridges become thin and broken (dry, little pressure) or run
	// together (wet, much pressure).
	Moisture uint8
	// RidgeShare is the mean part of a cell that is darker than half way between its dark and its bright, 0..100: about 50 for
	// a finger that is neither dry nor wet. It is what Moisture is made from.
	RidgeShare uint8
	// Contrast: mean difference between the dark and the bright of a cell; 100 levels of 255 and more are 100.
	Contrast uint8
}

// Bounds of the components. The shares were set on generated touches from dry to wet (components_test).
const (
	dryShare, wetShare   = 30, 70 // of ridges, where Moisture is 0
	driest, wettest      = 42, 58 // between which it is 100
	fullContrast         = 100    // levels
	leastContrastOfACell = 8      // less is not looked at: there is nothing in it
)

// components computes all of them. gray is w x h pixels at DPI in the upper left corner of the input, cells those of the mask.
func (e *extractor) components(q *Quality, gray []byte, w, h int) Components {
	c := Components{
		Coverage: percent(q.AreaMM2 / areaHigh), RidgeClarity: percent(q.Legibility), Minutiae: percent(q.Minutiae),
	}
	mask := e.channel(chMask)
	var share, spread float64
	cells := 0
	for cy := 1; cy < e.ch-1 && (cy+2)*cell <= h; cy++ {
		for cx := 1; cx < e.cw-1 && (cx+2)*cell <= w; cx++ {
			if mask[cy*e.cw+cx] <= 0 {
				continue
			}
			if s, d := ridges(gray, w, cx, cy); d >= leastContrastOfACell {
				share, spread, cells = share+s, spread+float64(d), cells+1
			}
		}
	}
	if cells == 0 {
		return c
	}
	share, spread = share/float64(cells), spread/float64(cells)
	c.RidgeShare = percent(float32(share))
	c.Contrast = percent(float32(spread / fullContrast))
	s := float32(share * 100)
	c.Moisture = percent(min(ramp(s, dryShare, driest), 1-ramp(s, wettest, wetShare)))
	return c
}

// ridges looks at a cell and the half cells about it, which hold more than one ridge: the part that is darker than half way
// between its darkest and its brightest, and how far these lie apart.
func ridges(gray []byte, w, cx, cy int) (share float64, spread int) {
	const side = 2 * cell
	x0, y0 := cx*cell-cell/2, cy*cell-cell/2
	lo, hi := byte(255), byte(0)
	for y := y0; y < y0+side; y++ {
		for _, v := range gray[y*w+x0:][:side] {
			lo, hi = min(lo, v), max(hi, v)
		}
	}
	dark, half := 0, (int(lo)+int(hi))/2
	for y := y0; y < y0+side; y++ {
		for _, v := range gray[y*w+x0:][:side] {
			if int(v) < half {
				dark++
			}
		}
	}
	return float64(dark) / (side * side), int(hi) - int(lo)
}

// percent is v in 0..1 as 0..100.
func percent(v float32) uint8 { return uint8(math.Round(float64(clamp(v, 0, 1)) * 100)) }

// Guidance is a short code of what the person at the reader should do. Codes are stable: displays translate them.
type Guidance string

// Codes for fingers.
const (
	NoGuidance   Guidance = ""
	MoreFinger   Guidance = "more_finger"   // put more of it on the reader
	PressHarder  Guidance = "press_harder"  // faint
	DryFinger    Guidance = "dry_finger"    // ridges are thin: moisten it or press harder
	WetFinger    Guidance = "wet_finger"    // ridges run together: dry it or press less
	CleanReader  Guidance = "clean_reader"  // ridges cannot be read
	CentreFinger Guidance = "centre_finger" // too few minutiae: the tip, or an edge
)

// good is the component from which nothing is said.
const good = 50

// Guidance says what would help most: the code of the worst component, nothing if all are good.
func (c *Components) Guidance() Guidance {
	moisture := DryFinger
	if c.RidgeShare > 50 {
		moisture = WetFinger
	}
	worst, code := uint8(good), NoGuidance
	for _, s := range [...]struct {
		value uint8
		code  Guidance
	}{
		{c.Coverage, MoreFinger}, {c.Moisture, moisture}, {c.Contrast, PressHarder}, {c.RidgeClarity, CleanReader}, {c.Minutiae, CentreFinger},
	} {
		if s.value < worst {
			worst, code = s.value, s.code
		}
	}
	return code
}
