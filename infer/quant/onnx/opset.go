package onnx

import (
	"fmt"
	"slices"
)

// QuantOpset is the least opset with quantisation per channel (QuantizeLinear-13 and DequantizeLinear-13).
const QuantOpset = 13

// Upgrade rewrites a model of an older opset to QuantOpset; a newer one stays as it is. Every operator is looked at: one
// whose meaning changed is rewritten after the ONNX change log (Operators.md), one that is not known to be unchanged is
// refused by name.
func (m *Model) Upgrade() error {
	if m.Opset >= QuantOpset {
		return nil
	}
	for _, n := range slices.Clone(m.Nodes) {
		if n.Domain != "" || unchanged[n.Op] {
			continue
		}
		up, ok := upgrades[n.Op]
		if !ok {
			return refuse("%v: it is not known how to bring this operator from opset %d to %d; export the model with opset %d or later", n, m.Opset, QuantOpset, QuantOpset)
		}
		if err := up(m, n); err != nil {
			return refuse("%v cannot be brought from opset %d to %d: %w", n, m.Opset, QuantOpset, err)
		}
	}
	m.Opset = QuantOpset
	return m.Sort()
}

// unchanged operators mean the same from MinOpset to QuantOpset, apart from the types that they take.
var unchanged = set(
	"Abs", "Acos", "Add", "And", "ArgMax", "ArgMin", "Asin", "Atan", "AveragePool", "Cast", "Ceil", "Concat", "Constant", "ConstantOfShape",
	"Conv", "ConvTranspose", "Cos", "DepthToSpace", "Div", "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten", "Floor", "GRU", "Gather",
	"GatherElements", "Gemm", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "Greater", "HardSigmoid", "Identity", "InstanceNormalization",
	"LRN", "LSTM", "LeakyRelu", "Less", "Log", "LpNormalization", "MatMul", "Max", "MaxPool", "Mean", "Min", "Mul", "Neg", "Not", "Or", "PRelu", "Pow",
	"RNN", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSumSquare", "Relu",
	"Reshape", "Selu", "Shape", "Sigmoid", "Sign", "Sin", "Size", "Softplus", "Softsign", "SpaceToDepth", "Sqrt", "Sub", "Sum", "Tan", "Tanh", "Tile",
	"Transpose", "Where", "Xor",
)

func set(names ...string) map[string]bool {
	out := map[string]bool{}
	for _, n := range names {
		out[n] = true
	}
	return out
}

// upgrades rewrite the operators that changed.
var upgrades = map[string]func(*Model, *Node) error{
	"BatchNormalization": upgradeBatchNorm,
	"Clip":               upgradeClip,
	"Dropout":            upgradeDropout,
	"Hardmax":            upgradeSoftmax,
	"LogSoftmax":         upgradeSoftmax,
	"Pad":                upgradePad,
	"ReduceSum":          upgradeAxes,
	"Resize":             upgradeResize,
	"Slice":              upgradeSlice,
	"Softmax":            upgradeSoftmax,
	"Split":              upgradeSplit,
	"Squeeze":            upgradeAxes,
	"TopK":               upgradeTopK,
	"Unsqueeze":          upgradeAxes,
	"Upsample":           upgradeUpsample,
}

// constInput adds an initialiser for a node's input i.
func (m *Model) constInput(n *Node, i int, what string, t *Tensor) {
	name := m.Fresh(n.Outputs[0] + "_" + what)
	m.Inits[name] = t
	for len(n.Inputs) <= i {
		n.Inputs = append(n.Inputs, "")
	}
	n.Inputs[i] = name
}

func ints64(v []int64) *Tensor { return IntTensor(Int64, v, int64(len(v))) }

func upgradeBatchNorm(_ *Model, n *Node) error {
	if n.Attrs.Int("spatial", 1) != 1 {
		return fmt.Errorf("spatial is 0")
	}
	if len(n.Outputs) > 1 {
		return fmt.Errorf("it is in training mode; export the model for inference")
	}
	n.Attrs.Remove("spatial")
	return nil
}

// Clip-11 moved the limits from attributes to inputs.
func upgradeClip(m *Model, n *Node) error {
	for i, name := range []string{"min", "max"} {
		if n.Attrs.Has(name) {
			m.constInput(n, i+1, name, FloatTensor([]float32{n.Attrs.Float(name, 0)}))
		}
	}
	n.Attrs.Remove("min", "max")
	return nil
}

// Dropout does nothing in inference.
func upgradeDropout(_ *Model, n *Node) error {
	if len(n.Outputs) > 1 && n.Outputs[1] != "" {
		return fmt.Errorf("its mask is used; export the model for inference")
	}
	n.Op, n.Attrs, n.Inputs, n.Outputs = "Identity", nil, n.Inputs[:1], n.Outputs[:1]
	return nil
}

// Pad-11 moved the sizes and the value from attributes to inputs.
func upgradePad(m *Model, n *Node) error {
	if n.Attrs.Has("pads") {
		m.constInput(n, 1, "pads", ints64(n.Attrs.Ints("pads")))
	}
	if n.Attrs.Has("value") {
		m.constInput(n, 2, "value", FloatTensor([]float32{n.Attrs.Float("value", 0)}))
	}
	n.Attrs.Remove("pads", "value")
	return nil
}

// Squeeze-13, Unsqueeze-13 and ReduceSum-13 moved the axes from an attribute to an input.
func upgradeAxes(m *Model, n *Node) error {
	if n.Attrs.Has("axes") {
		m.constInput(n, 1, "axes", ints64(n.Attrs.Ints("axes")))
		n.Attrs.Remove("axes")
	}
	return nil
}

// Slice-10 moved everything to inputs.
func upgradeSlice(m *Model, n *Node) error {
	if !n.Attrs.Has("starts") {
		return nil
	}
	starts, ends, axes := n.Attrs.Ints("starts"), n.Attrs.Ints("ends"), n.Attrs.Ints("axes")
	if len(ends) != len(starts) || axes != nil && len(axes) != len(starts) {
		return fmt.Errorf("starts %v, ends %v and axes %v differ in length", starts, ends, axes)
	}
	m.constInput(n, 1, "starts", ints64(starts))
	m.constInput(n, 2, "ends", ints64(ends))
	if axes != nil {
		m.constInput(n, 3, "axes", ints64(axes))
	}
	n.Attrs.Remove("starts", "ends", "axes")
	return nil
}

// Split-13 moved the sizes to an input.
func upgradeSplit(m *Model, n *Node) error {
	if n.Attrs.Has("split") {
		m.constInput(n, 1, "split", ints64(n.Attrs.Ints("split")))
		n.Attrs.Remove("split")
	}
	return nil
}

// TopK-10 moved k to an input.
func upgradeTopK(m *Model, n *Node) error {
	if n.Attrs.Has("k") {
		m.constInput(n, 1, "k", ints64([]int64{n.Attrs.Int("k", 0)}))
		n.Attrs.Remove("k")
	}
	return nil
}

// Softmax-13 works along one axis; before it, along all axes from that one on, as if they were one.
func upgradeSoftmax(m *Model, n *Node) error {
	axis := n.Attrs.Int("axis", 1)
	rank, known := m.Rank(n.Inputs[0])
	if !known {
		rank, known = m.Rank(n.Outputs[0])
	}
	if axis == -1 || known && (axis == int64(rank)-1) {
		n.Attrs.SetInt("axis", -1)
		return nil
	}
	// Flatten, work on rows, give the shape back.
	in, out := n.Inputs[0], n.Outputs[0]
	shape, flat, rows := m.Fresh(out+"_shape"), m.Fresh(out+"_flat"), m.Fresh(out+"_rows")
	flatten := &Node{Name: n.Name + ".flatten", Op: "Flatten", Inputs: []string{in}, Outputs: []string{flat}}
	flatten.Attrs.SetInt("axis", axis)
	n.Inputs, n.Outputs = []string{flat}, []string{rows}
	n.Attrs.SetInt("axis", -1)
	m.Nodes = append(m.Nodes,
		&Node{Name: n.Name + ".shape", Op: "Shape", Inputs: []string{in}, Outputs: []string{shape}}, flatten,
		&Node{Name: n.Name + ".reshape", Op: "Reshape", Inputs: []string{rows, shape}, Outputs: []string{out}})
	return nil
}

// Upsample-7 and -9 became Resize with the coordinates that they had always used.
func upgradeUpsample(m *Model, n *Node) error {
	mode := n.Attrs.Text("mode", "nearest")
	if n.Attrs.Has("scales") {
		s := n.Attrs.Floats("scales")
		m.constInput(n, 1, "scales", FloatTensor(s, int64(len(s))))
	}
	if len(n.Inputs) != 2 {
		return fmt.Errorf("it has %d inputs, not 2", len(n.Inputs))
	}
	n.Op, n.Attrs = "Resize", nil
	n.Inputs = []string{n.Inputs[0], "", n.Inputs[1]}
	legacyCoordinates(n, mode)
	return nil
}

func legacyCoordinates(n *Node, mode string) {
	n.Attrs.SetText("mode", mode)
	n.Attrs.SetText("coordinate_transformation_mode", "asymmetric")
	if mode == "nearest" {
		n.Attrs.SetText("nearest_mode", "floor")
	}
}

// Resize-10 had two inputs and the coordinates of Upsample; Resize-13 dropped one mode of Resize-11.
func upgradeResize(m *Model, n *Node) error {
	if m.Opset == 10 {
		if len(n.Inputs) != 2 {
			return fmt.Errorf("it has %d inputs, not 2", len(n.Inputs))
		}
		n.Inputs = []string{n.Inputs[0], "", n.Inputs[1]}
		legacyCoordinates(n, n.Attrs.Text("mode", "nearest"))
		return nil
	}
	if n.Attrs.Text("coordinate_transformation_mode", "") == "tf_half_pixel_for_nn" {
		return fmt.Errorf("tf_half_pixel_for_nn is no longer defined")
	}
	if t := m.Inits[n.Input(1)]; t != nil && t.Len() == 0 || n.Attrs.Text("coordinate_transformation_mode", "") != "tf_crop_and_resize" {
		n.Inputs[1] = "" // the region of interest is of no use
	}
	return nil
}
