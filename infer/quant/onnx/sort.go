package onnx

import "slices"

// Sort brings the nodes into topological order, keeping the order they have where that is one, and checks that every
// tensor is defined exactly once: it is how Read refuses broken graphs, and what a pass calls after it has added nodes.
func (m *Model) Sort() error {
	maker, err := m.definitions()
	if err != nil {
		return err
	}
	if err := m.checkUses(maker); err != nil {
		return err
	}
	waits := make([]int, len(m.Nodes))
	feeds := make([][]int, len(m.Nodes))
	for i, n := range m.Nodes {
		for _, in := range n.Inputs {
			if from, ok := maker[in]; ok && from >= 0 {
				waits[i]++
				feeds[from] = append(feeds[from], i)
			}
		}
	}
	ready := &minHeap{}
	for i := range m.Nodes {
		if waits[i] == 0 {
			ready.push(i)
		}
	}
	order := make([]*Node, 0, len(m.Nodes))
	for len(*ready) > 0 {
		i := ready.pop()
		order = append(order, m.Nodes[i])
		for _, to := range feeds[i] {
			if waits[to]--; waits[to] == 0 {
				ready.push(to)
			}
		}
	}
	if len(order) < len(m.Nodes) {
		i := slices.IndexFunc(waits, func(w int) bool { return w > 0 })
		return refuse("%v depends on itself: the graph has a cycle; export the model again", m.Nodes[i])
	}
	m.Nodes = order
	return nil
}

// definitions says which node makes each tensor; -1 for inputs and initialisers.
func (m *Model) definitions() (map[string]int, error) {
	maker := map[string]int{}
	for name := range m.Inits {
		maker[name] = -1
	}
	for _, v := range m.Inputs {
		if _, twice := maker[v.Name]; twice {
			return nil, refuse("tensor %q is both an input and an initialiser", v.Name)
		}
		maker[v.Name] = -1
	}
	for i, n := range m.Nodes {
		for _, o := range n.Outputs {
			if o == "" {
				continue
			}
			if first, twice := maker[o]; twice && first >= 0 {
				return nil, refuse("tensor %q is made by %v and by %v: the file is damaged", o, m.Nodes[first], n)
			} else if twice {
				return nil, refuse("tensor %q is made by %v and is an input or initialiser too: the file is damaged", o, n)
			}
			maker[o] = i
		}
	}
	return maker, nil
}

func (m *Model) checkUses(maker map[string]int) error {
	for _, n := range m.Nodes {
		for i, in := range n.Inputs {
			if _, ok := maker[in]; !ok && in != "" {
				return refuse("input %d of %v is tensor %q, which is neither an initialiser nor made by any node: the file lacks a weight", i, n, in)
			}
		}
	}
	for _, o := range m.Outputs {
		if _, ok := maker[o.Name]; !ok {
			return refuse("output %q of the model is made by no node: export the model again", o.Name)
		}
	}
	return nil
}

// minHeap gives the smallest index first.
type minHeap []int

func (h *minHeap) push(v int) {
	*h = append(*h, v)
	for i := len(*h) - 1; i > 0 && (*h)[i] < (*h)[(i-1)/2]; i = (i - 1) / 2 {
		(*h)[i], (*h)[(i-1)/2] = (*h)[(i-1)/2], (*h)[i]
	}
}

func (h *minHeap) pop() int {
	s := *h
	top := s[0]
	s[0] = s[len(s)-1]
	s = s[:len(s)-1]
	for i := 0; ; {
		c := 2*i + 1
		if c+1 < len(s) && s[c+1] < s[c] {
			c++
		}
		if c >= len(s) || s[i] <= s[c] {
			break
		}
		s[i], s[c] = s[c], s[i]
		i = c
	}
	*h = s
	return top
}
