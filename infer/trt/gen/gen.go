//go:build tensorrt

// Package gen carries the compiled objects that speak to TensorRT, one per generation of its headers, into the binary: the
// .syso files that scripts/trt makes. It has no Go code; infer/trt calls what is in them by gen/src/shim.h and lives with
// those that are missing. The Go toolchain links such files of a package by itself and notices when they change, which it
// does not for an archive that is named among the flags.
package gen
