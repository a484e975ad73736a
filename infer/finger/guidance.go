package finger

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
	CentreFinger Guidance = "centre_finger" // it lies at an edge
)

// Limits from which a component is spoken of. They were set on the 245 prints of shareOfGood: each lies outside the 1st or the 99th
// percentile there, which stands beside it. NFIQ 2's limit of the foreground would be spoken of for a tenth of them, and for half of
// those of the small reader among the four.
const (
	leastCoverageMM2 = 95   // 101
	mostOffMM        = 3.3  // 3.4
	leastContrast    = 45   // 70
	leastClarity     = 0.58 // 0.64
	fewestMinutiae   = 12   // 17
	driest, wettest  = 0.08, 0.76
	// dryReason and wetReason tell why ridges cannot be read. Prints that can be read are often as dry or wet as that.
	dryReason, wetReason = 0.3, 0.5
)

// Guidance says what would help most, nothing if all is good.
func (c *Components) Guidance() Guidance {
	_, code := c.Worst()
	return code
}

// Worst is the component that is spoken of, and its code; NoGuidance where all are good, and then the kind means nothing. Where the
// finger lies comes first, because it spoils the others; then whether it can be seen, then whether it can be read, and why not.
func (c *Components) Worst() (Kind, Guidance) {
	share := c[Moisture].Measured
	switch {
	case c[Position].Measured > mostOffMM:
		return Position, CentreFinger
	case c[Coverage].Measured < leastCoverageMM2:
		return Coverage, MoreFinger
	case c[Contrast].Measured < leastContrast:
		return Contrast, PressHarder
	case share < driest:
		return Moisture, DryFinger
	case share > wettest:
		return Moisture, WetFinger
	case c[RidgeClarity].Measured < leastClarity:
		return RidgeClarity, c.reason()
	case c[MinutiaeCount].Measured < fewestMinutiae:
		return MinutiaeCount, c.reason()
	}
	return 0, NoGuidance
}

// reason is why ridges cannot be read.
func (c *Components) reason() Guidance {
	switch share := c[Moisture].Measured; {
	case share < dryReason:
		return DryFinger
	case share > wetReason:
		return WetFinger
	}
	return CleanReader
}
