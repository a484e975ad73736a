package infer

// NotComputed is the value of a component that nothing could be said about: 255, as in ISO/IEC 29794-5.
const NotComputed = 255

// Component is one quality component of a face or a print. What was measured, and in what unit, its pipeline says by kind.
type Component struct {
	Value    uint8   // 0 (worst) to 100, or NotComputed; then Measured is 0
	Measured float32 // what Value was made from
}
