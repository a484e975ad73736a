package vnni

// signed is Go's int8: files that import vigil/kernels/int8 cannot name it.
type signed = int8
