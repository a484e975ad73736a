// Package synth makes fingerprints of nobody: whole fingers by seed, impressions of them as a sensor would see them, and
// the truth about both.
//
// Promises: the same seeds and options give the same bytes, on every architecture: all arithmetic is float32, float64 and
// integer operations of this package in a fixed order, with no fused multiply-add and none of math's functions that have
// assembly of their own (the test reads the arm64 code for it). Nothing is global; a Generator owns all scratch memory and
// is used by one goroutine at a time; a Finger is read-only once made and may be shared. A Source loses no frame and waits
// for nothing but its pool and, where a rate is set, the time a frame is due.
//
// A finger is made as Cappelli, Maio and Maltoni describe it (SFinGe: Handbook of Fingerprint Recognition, 2nd ed., ch. 6):
// a pattern class by its natural frequency, an orientation field from singular points (the zero-pole model of Sherlock and
// Monro, 1993, with a smooth correction of the arguments in the spirit of Vizcaya and Gerhardt, 1996), a map of ridge
// periods, and ridges that grow from scattered seeds under oriented filters. An impression is a contact region, a rigid
// move, a plastic distortion of the skin (Cappelli, Maio and Maltoni, 2001), pressure, moisture, scars, and a sensor.
//
// Coordinates are pixels, x to the right and y down, a whole number being the centre of a pixel; masters are at 500 dpi.
// Angles are radians, counter-clockwise as one sees them, from the x axis.
//
// It models no spoofs, no rolled prints and no latent prints, and knows no demographic statistics: error rates measured on
// its prints say nothing about people.
package synth
