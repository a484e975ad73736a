package int8_test

// signed is Go's int8, which the name of the package hides in files that import it.
type signed = int8
