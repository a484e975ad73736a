// Package cuda says whether there is an NVIDIA driver with a device, and which.
//
// Promises: nothing is linked. The driver's library, libcuda.so.1, is opened when it is asked for,
// so that a program with the tag cuda starts where there is none. Without the tag the answer is that this build cannot
// tell. Probe blocks while the driver starts, which takes up to some seconds when nobody else uses it.
//
// It runs nothing on a device. It is a shim of its own, of seven functions of the driver's C interface: gorgonia.org/cu, the
// binding for Go, links libcuda and ends the process where cuInit fails, and needs the CUDA toolkit's headers to compile.
package cuda

import (
	"fmt"

	"vigil/infer/chain"
)

// Device is what the driver says.
type Device struct {
	chain.Answer
	Driver  int    `json:"driver"`  // newest CUDA version that it knows, 1000 x major + 10 x minor; 0 without a driver
	Devices int    `json:"devices"` // how many there are; the rest is of the first
	Name    string `json:"name"`
	Compute string `json:"compute"` // compute capability such as "8.7"
	Bytes   int64  `json:"memory_bytes"`
}

// no is the answer that there is none.
func (d Device) no(state chain.State, format string, args ...any) Device {
	d.State, d.Reason = state, fmt.Sprintf(format, args...)
	return d
}
