package finger

import "vigil/kernels/minutiae"

// Quality says how fit a print is for a template, and decides whether one is used. Its parts lie between 0 (useless) and 1 (nothing
// to wish); Unified is the worst of them. Parts and scales are ours, not a standard's.
type Quality struct {
	Unified    float32
	Area       float32 // of finger seen
	Legibility float32 // how sure the network is of the ridges' direction, on average over the finger
	Minutiae   float32 // how many there are
	AreaMM2    float32 // square millimetres of finger whose ridges are more legible than not
	present    bool    // there is a finger
	sure       float32 // what Legibility is made of, 0..1
	minutiae   int     // likewise of Minutiae
	// Components are what guides the person, see Kind; they do not decide.
	Components Components
}

// Ranges over which the components run from 0 to 1. They were set on generated prints that match their fingers and on
// cut and spoilt copies of them that do not.
const (
	leastAreaMM2           = 12  // less is no finger
	leastSure              = 0.5 // mean confidence from which an area without minutiae is a finger
	leastMinutiae          = 4   // that make an area a finger, however poor
	areaLow, areaHigh      = 20, 90
	legibleLow             = 0.35
	legibleHigh            = 0.9
	countLow, countHigh    = 4, 16
	mm2PerCell             = cell * cell * (25.4 / DPI) * (25.4 / DPI)
	confidentMinutia       = 0 // logit: more likely a minutia than not
	cellsPerMaskCell       = minutiae.MaskCell / cell
	maskCellsThatMakeAFind = 2 // of the four cells of a mask cell
)

// judge reads the quality off the network's output.
func (e *extractor) judge() Quality {
	mask, confidence := e.channel(chMask), e.channel(chConfidence)
	var cells, legible int
	var sure float32
	for i, v := range mask {
		if v > 0 {
			cells++
			sure += sigmoid(confidence[i])
			if confidence[i] > 0 {
				legible++
			}
		}
	}
	q := Quality{AreaMM2: float32(legible) * mm2PerCell}
	if cells == 0 {
		return q
	}
	count := 0
	for _, f := range e.found {
		if f.logit > confidentMinutia {
			count++
		}
	}
	q.present = q.AreaMM2 >= leastAreaMM2 && (sure >= leastSure*float32(cells) || len(e.found) >= leastMinutiae)
	q.Area = ramp(q.AreaMM2, areaLow, areaHigh)
	q.Legibility = ramp(sure/float32(cells), legibleLow, legibleHigh)
	q.Minutiae = ramp(float32(count), countLow, countHigh)
	q.sure, q.minutiae = sure/float32(cells), count
	q.Unified = min(q.Area, q.Legibility, q.Minutiae)
	return q
}

// ramp runs from 0 at lo to 1 at hi.
func ramp(v, lo, hi float32) float32 { return clamp((v-lo)/(hi-lo), 0, 1) }
