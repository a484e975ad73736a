package onnx

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// ErrModel is wrapped by every refusal of a model.
var ErrModel = errors.New("onnx model is refused")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrModel, fmt.Errorf(format, args...))
}

// Model is a graph with the version of the operators that it uses.
type Model struct {
	Opset    int64            // of the default domain
	Domains  map[string]int64 // opsets of other domains, by name
	Name     string           // of the graph
	Nodes    []*Node          // in topological order
	Inits    map[string]*Tensor
	Inputs   []Value           // without those that are initialisers
	Outputs  []Value           // each is the output of a node, an input or an initialiser
	Metadata map[string]string // kept as it was

	// known are the types and shapes that the file declared for inner tensors. They are not written: passes outdate them.
	known map[string]Value
}

// Value is the declared type and shape of a tensor.
type Value struct {
	Name string
	Type Type
	Dims []Dim // nil also where the rank is not known
}

// Dim is the size of an axis: positive, or -1 where it is not known before the model runs; then Param may name it.
type Dim struct {
	Size  int64
	Param string
}

// Shape is the sizes alone, -1 for what is not known.
func (v Value) Shape() []int64 {
	out := make([]int64, len(v.Dims))
	for i, d := range v.Dims {
		out[i] = d.Size
	}
	return out
}

// Static reports whether every size is known.
func (v Value) Static() bool {
	return v.Dims != nil && !slices.ContainsFunc(v.Dims, func(d Dim) bool { return d.Size < 0 })
}

// Dims makes known sizes.
func Dims(sizes ...int64) []Dim {
	out := make([]Dim, len(sizes))
	for i, s := range sizes {
		out[i] = Dim{Size: s}
	}
	return out
}

// Node is one operator. An empty input or output name is one that is left out.
type Node struct {
	Name, Op, Domain string
	Inputs, Outputs  []string
	Attrs            Attrs
}

func (n *Node) String() string { return fmt.Sprintf("node %q (%s)", n.Name, n.Op) }

// Input is the name of input i, "" if it is left out.
func (n *Node) Input(i int) string {
	if i < len(n.Inputs) {
		return n.Inputs[i]
	}
	return ""
}

// Clone is a copy that shares nothing but the bytes of initialisers, which nobody changes in place.
func (m *Model) Clone() *Model {
	c := *m
	c.Domains, c.Metadata, c.Inits, c.known = maps.Clone(m.Domains), maps.Clone(m.Metadata), maps.Clone(m.Inits), maps.Clone(m.known)
	c.Inputs, c.Outputs = slices.Clone(m.Inputs), slices.Clone(m.Outputs)
	for _, list := range [][]Value{c.Inputs, c.Outputs} {
		for i := range list {
			list[i].Dims = slices.Clone(list[i].Dims)
		}
	}
	c.Nodes = make([]*Node, len(m.Nodes))
	for i, n := range m.Nodes {
		d := *n
		d.Inputs, d.Outputs, d.Attrs = slices.Clone(n.Inputs), slices.Clone(n.Outputs), n.Attrs.clone()
		c.Nodes[i] = &d
	}
	return &c
}

// Const is the initialiser of that name, nil if the tensor is computed.
func (m *Model) Const(name string) *Tensor { return m.Inits[name] }

// Wipe clears the constants, where they are a secret. The model is of no use after it.
func (m *Model) Wipe() {
	for _, t := range m.Inits {
		clear(t.Data)
	}
}

// Producers gives the node that makes each computed tensor.
func (m *Model) Producers() map[string]*Node {
	out := map[string]*Node{}
	for _, n := range m.Nodes {
		for _, o := range n.Outputs {
			if o != "" {
				out[o] = n
			}
		}
	}
	return out
}

// Consumers gives the nodes that read each tensor, in order, a node once per input that it reads it with.
func (m *Model) Consumers() map[string][]*Node {
	out := map[string][]*Node{}
	for _, n := range m.Nodes {
		for _, i := range n.Inputs {
			if i != "" {
				out[i] = append(out[i], n)
			}
		}
	}
	return out
}

// IsOutput reports whether the tensor is an output of the model.
func (m *Model) IsOutput(name string) bool {
	return slices.ContainsFunc(m.Outputs, func(v Value) bool { return v.Name == name })
}

// ReplaceUses makes every node that reads old read name instead. Outputs of the model keep theirs.
func (m *Model) ReplaceUses(old, name string) {
	for _, n := range m.Nodes {
		for i, in := range n.Inputs {
			if in == old {
				n.Inputs[i] = name
			}
		}
	}
}

// Fresh is a tensor name that begins with base and that nothing has yet. It costs a look at the whole graph.
func (m *Model) Fresh(base string) string {
	used := map[string]bool{}
	for name := range m.Inits {
		used[name] = true
	}
	for _, v := range m.Inputs {
		used[v.Name] = true
	}
	for _, n := range m.Nodes {
		for _, o := range n.Outputs {
			used[o] = true
		}
	}
	name := base
	for i := 1; used[name]; i++ {
		name = fmt.Sprintf("%s_%d", base, i)
	}
	return name
}

// RemoveDead removes nodes and initialisers that no output depends on, and says how many nodes went.
func (m *Model) RemoveDead() int {
	producer := m.Producers()
	live := map[*Node]bool{}
	used := map[string]bool{}
	var mark func(name string)
	stack := []string{}
	mark = func(name string) {
		if name == "" || used[name] {
			return
		}
		used[name] = true
		stack = append(stack, name)
	}
	for _, o := range m.Outputs {
		mark(o.Name)
	}
	for len(stack) > 0 {
		name := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if n := producer[name]; n != nil && !live[n] {
			live[n] = true
			for _, i := range n.Inputs {
				mark(i)
			}
		}
	}
	before := len(m.Nodes)
	m.Nodes = slices.DeleteFunc(m.Nodes, func(n *Node) bool { return !live[n] })
	maps.DeleteFunc(m.Inits, func(name string, _ *Tensor) bool { return !used[name] })
	return before - len(m.Nodes)
}

// Rank is the number of axes of a tensor, as far as initialisers and the declarations of the file tell.
func (m *Model) Rank(name string) (int, bool) {
	if t := m.Inits[name]; t != nil {
		return len(t.Dims), true
	}
	for _, list := range [][]Value{m.Inputs, m.Outputs} {
		for _, v := range list {
			if v.Name == name && v.Dims != nil {
				return len(v.Dims), true
			}
		}
	}
	if v, ok := m.known[name]; ok && v.Dims != nil {
		return len(v.Dims), true
	}
	return 0, false
}
