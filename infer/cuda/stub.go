//go:build !cuda

package cuda

import "vigil/infer/chain"

// Probe asks the driver. This build cannot.
func Probe() Device { return Device{}.no(chain.No, "not part of this build (tag cuda)") }
