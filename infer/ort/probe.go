package ort

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"

	ortgo "github.com/yalue/onnxruntime_go"

	"vigil/infer"
)

// ProbeOptions says how a model is run for its inner values.
type ProbeOptions struct {
	Unoptimised   bool   // run the graph as it is written, node by node
	OptimisedPath string // write the graph that is really run to this file
}

// Probe is a model loaded to look inside: tensors of any type and of shapes that only a run tells. It is for tools;
// memory is allocated per run. Tensors without axes
// or without elements cannot be looked at. It is not safe for concurrent use.
type Probe struct {
	session *ortgo.DynamicAdvancedSession
	inputs  []infer.Tensor
	outputs []string
}

// ProbeValue is one tensor that a run gave. Values holds those of a float32 tensor; of another
// type, Data has them little-endian, row-major.
type ProbeValue struct {
	Type   int32 // of the ONNX schema
	Shape  []int64
	Data   []byte
	Values []float32
}

// Probe loads a model whose inputs are float32 of these shapes. outputs are names of the model's outputs.
func (r *Runtime) Probe(onnx []byte, inputs []infer.Tensor, outputs []string, o ProbeOptions) (*Probe, error) {
	opts, err := r.sessionOptions(nil)
	if err != nil {
		return nil, err
	}
	defer opts.Destroy()
	if o.Unoptimised {
		err = opts.SetGraphOptimizationLevel(ortgo.GraphOptimizationLevelDisableAll)
	}
	if o.OptimisedPath != "" {
		err = errors.Join(err, opts.SetOptimizedModelFilePath(o.OptimisedPath))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot set session options: %w", err)
	}
	s, err := ortgo.NewDynamicAdvancedSessionWithONNXData(onnx, names(inputs), outputs, opts)
	if err != nil {
		return nil, fmt.Errorf("ONNX Runtime refuses the model: %w", err)
	}
	return &Probe{session: s, inputs: inputs, outputs: outputs}, nil
}

// Run runs the model once on these inputs and calls see with every output in turn. What see gets is valid during the call.
func (p *Probe) Run(ctx context.Context, inputs [][]float32, see func(i int, v *ProbeValue) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	in := make([]ortgo.Value, len(inputs))
	out := make([]ortgo.Value, len(p.outputs))
	defer func() {
		for _, v := range slices.Concat(in, out) {
			if v != nil && !reflect.ValueOf(v).IsNil() { // a failed conversion leaves a typed nil
				err = errors.Join(err, v.Destroy())
			}
		}
	}()
	for i, values := range inputs {
		t, err := ortgo.NewTensor(ortgo.NewShape(p.inputs[i].Shape...), values)
		if err != nil {
			return fmt.Errorf("cannot make tensor %v: %w", p.inputs[i], err)
		}
		in[i] = t
	}
	if err := p.session.Run(in, out); err != nil {
		return fmt.Errorf("the model failed while running: %w", err)
	}
	for i, v := range out {
		pv, err := probeValue(v)
		if err != nil {
			return fmt.Errorf("output %q: %w", p.outputs[i], err)
		}
		if err := see(i, pv); err != nil {
			return err
		}
	}
	return nil
}

func probeValue(v ortgo.Value) (*ProbeValue, error) {
	p := &ProbeValue{Shape: slices.Clone(v.GetShape())}
	le := binary.LittleEndian
	switch t := v.(type) {
	case *ortgo.Tensor[float32]:
		p.Type, p.Values = ortgo.TensorElementDataTypeFloat, t.GetData()
	case *ortgo.Tensor[int64]:
		p.Type = ortgo.TensorElementDataTypeInt64
		for _, x := range t.GetData() {
			p.Data = le.AppendUint64(p.Data, uint64(x))
		}
	case *ortgo.Tensor[int32]:
		p.Type = ortgo.TensorElementDataTypeInt32
		for _, x := range t.GetData() {
			p.Data = le.AppendUint32(p.Data, uint32(x))
		}
	case *ortgo.Tensor[uint8]:
		p.Type, p.Data = ortgo.TensorElementDataTypeUint8, slices.Clone(t.GetData())
	case *ortgo.Tensor[int8]:
		p.Type = ortgo.TensorElementDataTypeInt8
		for _, x := range t.GetData() {
			p.Data = append(p.Data, byte(x))
		}
	case *ortgo.Tensor[bool]:
		p.Type = ortgo.TensorElementDataTypeBool
		for _, x := range t.GetData() {
			p.Data = append(p.Data, map[bool]byte{true: 1}[x])
		}
	default:
		return nil, fmt.Errorf("values of type %T cannot be looked at", v)
	}
	return p, nil
}

// Close frees the model.
func (p *Probe) Close() error { return p.session.Destroy() }
