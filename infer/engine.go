package infer

import (
	"context"
	"fmt"
)

// Tensor describes one input or output of a model.
type Tensor struct {
	Name   string  `json:"name"`
	Type   string  `json:"type"`             // "float32" for now
	Shape  []int64 `json:"shape"`            // elements per axis
	Layout string  `json:"layout,omitempty"` // "NCHW" for pictures
}

// Elements is the number of values of the tensor; 0 for a shape that no tensor can have or that would overflow.
func (t Tensor) Elements() int {
	n := int64(1)
	for _, d := range t.Shape {
		if d <= 0 || d > maxElements || n*d > maxElements {
			return 0
		}
		n *= d
	}
	return int(n)
}

// maxElements bounds one tensor (1 GiB as float32), so that a hostile bundle cannot claim the machine.
const maxElements = 1 << 28

func (t Tensor) String() string { return fmt.Sprintf("%s %s%v", t.Name, t.Type, t.Shape) }

// Runtime makes engines from models in memory.
type Runtime interface {
	// Name says what runs the models, for people: "onnxruntime 1.24.3 CPU".
	Name() string
	// Dialects names the dialects of variants (DialectCPU and so on) that it runs better than the stage's own file, the best
	// first. A pipeline loads the variant of a stage in the first of them that the bundle has.
	Dialects() []string
	// Load makes an engine of an ONNX model and checks that it has exactly these tensors. The bytes may be wiped as soon
	// as Load returns. Errors name the tensor or node that does not fit.
	Load(ctx context.Context, onnx []byte, inputs, outputs []Tensor) (Engine, error)
	// Close frees the runtime; every engine must be closed before.
	Close() error
}

// Engine is one loaded model. It is safe for concurrent use; each IO is not.
type Engine interface {
	// NewIO allocates and binds one set of input and output tensors.
	NewIO() (IO, error)
	// Close frees the model; every IO must be closed before.
	Close() error
}

// Explained is an Engine of a runtime that has more than one way to run a model.
type Explained interface {
	// Kernels says which way was taken, and why, in words.
	Kernels() string
}

// IO is one set of bound tensors. The slices stay valid, at the same address, until Close.
type IO interface {
	// Input is the memory of input i, row-major, to be filled before Run.
	Input(i int) []float32
	// Output is the memory of output i, valid after Run until the next Run.
	Output(i int) []float32
	// Run executes the model once and blocks until it is done. It does not start if the context has ended.
	Run(ctx context.Context) error
	// Close wipes and frees the tensors.
	Close() error
}
