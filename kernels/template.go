package kernels

import "math"

// DotRows scores a probe against rows of a gallery: dst[i] is the dot product of probe with the len(probe) values that
// start at rows[i*strideBytes]. Accumulation is in int32 and exact: 127*127*n stays below 2^31 for every n up to
// 133,000. strideBytes >= len(probe); callers keep rows 64-byte aligned for the backends that load whole vectors.
func DotRows(dst []int32, rows []int8, strideBytes int, probe []int8) {
	n := len(probe)
	if strideBytes < n || (len(dst) > 0 && len(rows) < (len(dst)-1)*strideBytes+n) {
		panic("kernels: gallery rows shorter than promised")
	}
	for i := range dst {
		dst[i] = dot(rows[i*strideBytes:][:n], probe)
	}
}

func dot(a, b []int8) int32 {
	b = b[:len(a)]
	var s0, s1 int32
	i := 0
	for ; i+1 < len(a); i += 2 {
		s0 += int32(a[i]) * int32(b[i])
		s1 += int32(a[i+1]) * int32(b[i+1])
	}
	if i < len(a) {
		s0 += int32(a[i]) * int32(b[i])
	}
	return s0 + s1
}

// Normalize scales v to unit L2 length in place and returns the length it had. A vector of zeros, or one that holds a
// NaN or infinity, is left alone and reported by a length of 0.
func Normalize(v []float32) float32 {
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	length := math.Sqrt(sum)
	if length == 0 || math.IsNaN(length) || math.IsInf(length, 0) {
		return 0
	}
	inv := float32(1 / length)
	for i := range v {
		v[i] *= inv
	}
	return float32(length)
}

// QuantizeUnit writes v as symmetric int8 into dst (same length) and returns the scale by which the int8 values become
// a vector of unit L2 length again. So dot(a,b)*scaleA*scaleB is the exact cosine of the two quantised templates, and a
// template scores 1 against itself. A vector that Normalize would refuse gives zeros and scale 0.
func QuantizeUnit(dst []int8, v []float32) (scale float32) {
	var peak float32
	for _, x := range v {
		peak = max(peak, x, -x) // NaN once any value is
	}
	if !(peak > 0) || math.IsInf(float64(peak), 0) {
		clear(dst)
		return 0
	}
	var sum float64
	for i, x := range v {
		q := math.RoundToEven(float64(x) / float64(peak) * 127)
		dst[i] = int8(q)
		sum += q * q
	}
	return float32(1 / math.Sqrt(sum))
}
