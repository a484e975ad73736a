//go:build !tensorrt

package trt

import (
	"vigil/infer"
	"vigil/infer/chain"
)

// Supported says whether this build can drive TensorRT at all (tag tensorrt).
const Supported = false

// Runtime runs models on TensorRT. In this build there is none.
type Runtime struct{ infer.Runtime }

// Options configures a runtime.
type Options struct {
	Library string
	Alloc   Alloc
	Engines Engines
}

// Inspect says which TensorRT is installed. In this build it answers ErrUnsupported.
func Inspect(string) (Library, error) { return Library{}, ErrUnsupported }

// Probe says whether TensorRT can be used here. In this build it cannot.
func Probe(string) chain.Answer { return chain.Answer{State: chain.No, Reason: ErrUnsupported.Error()} }

// Open opens TensorRT. In this build it answers ErrUnsupported.
func Open(Options) (*Runtime, error) { return nil, ErrUnsupported }

// Counts are what the runtime did.
func (*Runtime) Counts() Counts { return Counts{} }

// buildHere is the child's work.
func buildHere(Order, []byte, func(Step), func(Built, []byte) error) error { return ErrUnsupported }
