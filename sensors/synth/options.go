package synth

import "fmt"

// Severity names a set of ready-made impression options.
type Severity uint8

// Easy is a careful user on a clean optical reader, Normal an everyday touch, Hard a bad finger on a dirty reader.
const (
	Easy Severity = iota
	Normal
	Hard
)

// ImpressionOptions says what a sensor sees and how fingers touch it. Start from Preset and change what must differ: the
// zero value has no size and is refused. Lengths are millimetres of skin.
type ImpressionOptions struct {
	Width           int     `json:"width"`  // pixels, 64 to 2048
	Height          int     `json:"height"` // pixels, 64 to 2048
	DPI             float64 `json:"dpi"`    // 250 to 1000
	RotationDegrees Range   `json:"rotation_degrees"`
	ShiftMM         Range   `json:"shift_mm"`       // from the middle of the sensor to that of the contact, in any direction; 0 to 15
	OffCentreMM     Range   `json:"off_centre_mm"`  // from the middle of the pattern to that of the contact, in any direction; 0 to 10
	ContactMM       Range   `json:"contact_mm"`     // width of the contact region, 4 to 40
	ContactAspect   Range   `json:"contact_aspect"` // its height over its width, 0.7 to 2
	TractionMM      Range   `json:"traction_mm"`    // how far the skin is dragged, in any direction; 0 to 1
	TorqueDegrees   Range   `json:"torque_degrees"` // how far it is twisted, -10 to 10
	WobbleMM        Range   `json:"wobble_mm"`      // other smooth distortion, 0 to 0.3
	Pressure        Range   `json:"pressure"`       // -1 (hardly touching, thin ridges) to 1 (hard, thick ridges)
	Moisture        Range   `json:"moisture"`       // -1 (dry, broken ridges) to 1 (wet, filled valleys)
	Scars           Range   `json:"scars"`          // cuts and creases of this impression only, 0 to 20
	Residue         Range   `json:"residue"`        // what an earlier print left on the glass, 0 to 1
	Background      Range   `json:"background"`     // grey of the empty sensor, 100 to 255
	Shading         Range   `json:"shading"`        // grey levels between its lightest and darkest part, 0 to 80
	Contrast        Range   `json:"contrast"`       // 0.05 to 1
	Blur            Range   `json:"blur"`           // deviation of the point spread in pixels, 0 to 2
	Noise           Range   `json:"noise"`          // deviation in grey levels, 0 to 64
}

// Preset returns the options of a severity, at 500 dpi and 256 by 320 pixels.
func Preset(s Severity) ImpressionOptions {
	o := ImpressionOptions{
		Width: 256, Height: 320, DPI: 500, RotationDegrees: Range{-8, 8}, ShiftMM: Range{0, 0.8}, OffCentreMM: Range{0, 1},
		ContactMM: Range{11.5, 13}, ContactAspect: Range{1.25, 1.45}, TractionMM: Range{0, 0.1}, TorqueDegrees: Range{-1, 1},
		WobbleMM: Range{0, 0.05}, Pressure: Range{-0.15, 0.15}, Moisture: Range{-0.1, 0.1}, Background: Range{235, 252},
		Shading: Range{0, 8}, Contrast: Range{0.85, 1}, Blur: Range{0.5, 0.7}, Noise: Range{0, 3},
	}
	switch s {
	case Easy:
	case Hard:
		o.RotationDegrees, o.ShiftMM, o.OffCentreMM = Range{-45, 45}, Range{0, 4}, Range{0, 4.5}
		o.ContactMM, o.ContactAspect = Range{8, 14}, Range{1.05, 1.6}
		o.TractionMM, o.TorqueDegrees, o.WobbleMM = Range{0, 0.6}, Range{-7, 7}, Range{0, 0.18}
		o.Pressure, o.Moisture, o.Scars = Range{-0.9, 0.9}, Range{-1, 1}, Range{0, 5}
		o.Residue, o.Background, o.Shading = Range{0, 0.7}, Range{150, 255}, Range{0, 50}
		o.Contrast, o.Blur, o.Noise = Range{0.35, 1}, Range{0.4, 1.3}, Range{0, 18}
	default:
		o.RotationDegrees, o.ShiftMM, o.OffCentreMM = Range{-20, 20}, Range{0, 2}, Range{0, 2.5}
		o.ContactMM, o.ContactAspect = Range{10, 13.5}, Range{1.15, 1.5}
		o.TractionMM, o.TorqueDegrees, o.WobbleMM = Range{0, 0.35}, Range{-4, 4}, Range{0, 0.1}
		o.Pressure, o.Moisture, o.Scars = Range{-0.5, 0.5}, Range{-0.6, 0.6}, Range{0, 2}
		o.Residue, o.Background, o.Shading = Range{0, 0.25}, Range{200, 255}, Range{0, 25}
		o.Contrast, o.Blur, o.Noise = Range{0.6, 1}, Range{0.4, 0.9}, Range{0, 8}
	}
	return o
}

// Check says what is wrong with the options, if anything.
func (o *ImpressionOptions) Check() error {
	if min(o.Width, o.Height) < 64 || max(o.Width, o.Height) > 2048 {
		return fmt.Errorf("cannot make an impression of %d x %d pixels: each side is 64 to 2048; start from Preset", o.Width, o.Height)
	}
	if !(o.DPI >= 250 && o.DPI <= 1000) {
		return fmt.Errorf("cannot make an impression at %g dpi: take 250 to 1000", o.DPI)
	}
	for _, r := range [...]struct {
		name   string
		value  Range
		lo, hi float64
	}{
		{"RotationDegrees", o.RotationDegrees, -180, 180}, {"ShiftMM", o.ShiftMM, 0, 15}, {"OffCentreMM", o.OffCentreMM, 0, 10},
		{"ContactMM", o.ContactMM, 4, 40}, {"ContactAspect", o.ContactAspect, 0.7, 2}, {"TractionMM", o.TractionMM, 0, 1},
		{"TorqueDegrees", o.TorqueDegrees, -10, 10}, {"WobbleMM", o.WobbleMM, 0, 0.3}, {"Pressure", o.Pressure, -1, 1},
		{"Moisture", o.Moisture, -1, 1}, {"Scars", o.Scars, 0, 20}, {"Residue", o.Residue, 0, 1},
		{"Background", o.Background, 100, 255}, {"Shading", o.Shading, 0, 80}, {"Contrast", o.Contrast, 0.05, 1},
		{"Blur", o.Blur, 0, 2}, {"Noise", o.Noise, 0, 64},
	} {
		if err := r.value.check(r.name, r.lo, r.hi); err != nil {
			return err
		}
	}
	return nil
}

// Condition is what was drawn from the ranges for one impression.
type Condition struct {
	Pressure   float64 `json:"pressure"`
	Moisture   float64 `json:"moisture"`
	Scars      int     `json:"scars"`
	Residue    float64 `json:"residue"`
	Background float64 `json:"background"`
	Shading    float64 `json:"shading"`
	Contrast   float64 `json:"contrast"`
	Blur       float64 `json:"blur"`
	Noise      float64 `json:"noise"`
}

func (o *ImpressionOptions) condition(r random) Condition {
	return Condition{
		Pressure: r.in(o.Pressure), Moisture: r.in(o.Moisture), Scars: int(r.in(o.Scars) + 0.5), Residue: r.in(o.Residue),
		Background: r.in(o.Background), Shading: r.in(o.Shading), Contrast: r.in(o.Contrast), Blur: r.in(o.Blur), Noise: r.in(o.Noise),
	}
}
