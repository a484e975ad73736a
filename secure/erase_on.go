//go:build goexperiment.runtimesecret

package secure

import "runtime/secret"

// erasing runs f and has the runtime erase its stack, registers and heap
// temporaries.
func erasing(f func()) { secret.Do(f) }
