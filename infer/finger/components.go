package finger

import (
	"fmt"
	"math"

	"vigil/infer"
)

// Kind names a quality component of a print. ISO/IEC 29794-4 is about them; its text was not at hand. Its public reference
// implementation, NFIQ 2 (github.com/usnistgov/NFIQ2, commit d005084e), computes blockwise statistics and lets a forest of trees
// judge; what it says to the person ("actionable quality feedback") is three limits, and where we measure the same thing it is said
// beside the kind. All else is ours: it reads the network that finds the minutiae anyway. The numbers are not exchangeable with
// NFIQ 2's.
type Kind int

// Kinds, with what Component.Measured is. A cell is 8 x 8 pixels at 500 pixels per inch.
const (
	// Coverage measures square millimetres of finger: cells that the network takes for finger and that hold contrast, legible or not.
	// Value: 50 at NFIQ 2's limit of SufficientFingerprintForeground, 50,000 pixels or 129 mm²;
	// proportional. NFIQ 2 counts what is dark after a blur.
	Coverage Kind = iota
	// Position measures millimetres from the middle of the picture to the centre of gravity of those cells. Value: 100 in the middle,
	// 0 at 8 mm. NFIQ 2 has nothing like it.
	Position
	// Contrast measures the mean difference, in levels, of the darkest and the brightest pixel of two cells by two. Value: 100 levels
	// and more are 100. NFIQ 2 only refuses a picture that is white (a mean above 250) or even (a deviation below 1).
	Contrast
	// RidgeClarity measures how sure the network is of the direction of the ridges, 0 to 1, on average over the finger. Value:
	// Quality.Legibility. NFIQ 2's local clarity and orientation certainty ask for the same from the pixels.
	RidgeClarity
	// MinutiaeCount counts minutiae that are more likely than not. Value: Quality.Minutiae. NFIQ 2's limit of
	// FingerprintImageWithMinutiae is 5, of another extractor.
	MinutiaeCount
	// Moisture measures the part of two cells by two that is darker than half way between their darkest and brightest pixel: the
	// share of the ridges, which become thin and broken in a dry print and run together in a wet one. Value: 100 at shareOfGood,
	// 0 where everything or nothing is ridge. NFIQ 2's ridge valley uniformity looks at the widths of each ridge and valley.
	Moisture
	// Kinds is how many there are.
	Kinds
)

var described = [Kinds]struct{ name, unit string }{
	Coverage: {"Coverage", "mm2"}, Position: {"Position", "mm"}, Contrast: {"Contrast", "levels"},
	RidgeClarity: {"RidgeClarity", "1"}, MinutiaeCount: {"MinutiaeCount", "minutiae"}, Moisture: {"Moisture", "1"},
}

// String is the name.
func (k Kind) String() string {
	if k < 0 || k >= Kinds {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return described[k].name
}

// Unit is the unit of what is measured: "mm2", "mm", "levels", "minutiae", or "1" for a ratio.
func (k Kind) Unit() string { return described[k].unit }

// Component is infer.Component: what is measured is in the kind's unit, and every kind is computed.
type Component = infer.Component

// Components are the quality components of a print. They guide the person at a reader, and decide nothing.
type Components [Kinds]Component

const (
	mmPerPixel           = 25.4 / DPI
	halfCoverageMM2      = 50_000 * mmPerPixel * mmPerPixel // NFIQ 2's limit
	farthestMM           = 8
	fullContrast         = 100 // levels
	leastContrastOfACell = 8   // levels; less is not looked at: there is nothing in it
	// shareOfGood is the median share of ridges in 245 prints of FVC2002 DB1, DB3 and FVC2004 DB2, DB3 (sets B) that match most of
	// the others of their finger. It depends on the reader: the medians of the four are 0.26, 0.38, 0.35 and 0.60.
	shareOfGood = 0.42
)

// components computes all of them. gray is w x h pixels at DPI in the upper left corner of the input, cells those of the mask.
func (e *extractor) components(q *Quality, gray []byte, w, h int) (c Components) {
	s := e.survey(gray, w, h)
	c.set(RidgeClarity, q.Legibility, q.sure)
	c.set(MinutiaeCount, q.Minutiae, float32(q.minutiae))
	area := float32(s.cells * mm2PerCell)
	c.set(Coverage, area/(2*halfCoverageMM2), area)
	if s.cells > 0 {
		dx, dy := s.x/s.cells-float64(w)/2, s.y/s.cells-float64(h)/2
		off := float32(math.Hypot(dx, dy) * mmPerPixel)
		c.set(Position, 1-off/farthestMM, off)
		share, spread := float32(s.share/s.cells), float32(s.spread/s.cells)
		c.set(Contrast, spread/fullContrast, spread)
		c.set(Moisture, min(share/shareOfGood, (1-share)/(1-shareOfGood)), share)
	}
	return c
}

// set notes a component; value is 0 to 1.
func (c *Components) set(k Kind, value, measured float32) {
	c[k] = Component{Value: percent(value), Measured: measured}
}

// survey are sums over the cells of a print that hold contrast.
type survey struct {
	cells, share, spread float64
	x, y                 float64 // of their middles, in pixels
}

func (e *extractor) survey(gray []byte, w, h int) (s survey) {
	if w < 2*cell || h < 2*cell {
		return s
	}
	mask := e.channel(chMask)
	for cy := 0; cy < e.ch && (cy+1)*cell <= h; cy++ {
		for cx := 0; cx < e.cw && (cx+1)*cell <= w; cx++ {
			if mask[cy*e.cw+cx] <= 0 {
				continue
			}
			x, y := max(0, min(w-2*cell, cx*cell-cell/2)), max(0, min(h-2*cell, cy*cell-cell/2))
			share, spread := ridges(gray, w, x, y)
			if spread < leastContrastOfACell {
				continue
			}
			s.cells, s.share, s.spread = s.cells+1, s.share+share, s.spread+float64(spread)
			s.x, s.y = s.x+float64(cx*cell+cell/2), s.y+float64(cy*cell+cell/2)
		}
	}
	return s
}

// ridges looks at two cells by two, which hold more than one ridge: the part that is darker than half way between the darkest and
// the brightest, and how far these lie apart.
func ridges(gray []byte, w, x0, y0 int) (share float64, spread int) {
	const side = 2 * cell
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
