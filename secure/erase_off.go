//go:build !goexperiment.runtimesecret

package secure

// erasing runs f. In this build the temporaries of f are ordinary garbage.
func erasing(f func()) { f() }
