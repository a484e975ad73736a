//go:build cuda

package cuda

// #cgo CFLAGS: -std=gnu11 -O2 -Wall -Wextra -Werror
// #cgo LDFLAGS: -ldl
// #include "driver.h"
import "C"

import (
	"fmt"

	"vigil/infer/chain"
)

// Codes of CUresult that have a remedy of their own; see cuda.h.
const (
	errNoDevice       = 100 // CUDA_ERROR_NO_DEVICE
	errSystemMismatch = 803 // CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
	errUnknown        = 999 // CUDA_ERROR_UNKNOWN
)

// Probe asks the driver.
func Probe() Device {
	var a C.vigil_cuda_answer
	C.vigil_cuda_probe(&a)
	d := Device{Driver: int(a.driver), Devices: int(a.devices)}
	switch {
	case a.missing != 0:
		return d.no(chain.No, "no NVIDIA driver: %s", C.GoString(&a.text[0]))
	case a.error == errNoDevice || a.error == 0 && a.devices < 1:
		return d.no(chain.No, "the driver (CUDA %d.%d) shows no device", d.Driver/1000, d.Driver%1000/10)
	case a.error == errSystemMismatch:
		return d.no(chain.No, "the driver's library and its kernel module are of different versions: restart the machine after an update")
	case a.error == errUnknown:
		return d.no(chain.DontKnow, "the driver does not start (%s): may this user open /dev/nvidia*?", C.GoString(&a.text[0]))
	case a.error != 0:
		return d.no(chain.DontKnow, "%s answered %d", C.GoString(&a.text[0]), int(a.error))
	}
	d.Name, d.Bytes = C.GoString(&a.name[0]), int64(a.bytes)
	d.Compute = fmt.Sprintf("%d.%d", a.major, a.minor)
	return d.found()
}

// found fills in the answer of a device that is there.
func (d Device) found() Device {
	d.State = chain.Yes
	d.Reason = fmt.Sprintf("%s, compute capability %s, %d MiB, driver of CUDA %d.%d", d.Name, d.Compute, d.Bytes>>20, d.Driver/1000, d.Driver%1000/10)
	return d
}
