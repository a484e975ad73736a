// Package kernels holds the numeric inner loops of Vigil in portable Go: image to tensor, alignment, quantisation and
// template scoring. It is the reference that every faster backend must equal at every length.
//
// Promises: functions are pure, safe for concurrent use, never block, and allocate nothing; whoever calls owns every
// slice. Work areas that must outlive a call (the tap tables of a Letterbox) are explicit values made once.
// Arguments are checked where a wrong length would read out of bounds: such a call panics, because it is a bug of the
// caller and never depends on data from outside. Callers that handle outside data check Image with Image.Check first.
//
// It does not decode pictures, know what a face is, or choose a backend.
package kernels
