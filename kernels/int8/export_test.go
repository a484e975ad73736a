package int8

import "fmt"

// WithGap makes networks with a gap behind every tensor until the function that it returns is called.
func WithGap(bytes int) (undo func()) {
	gap = bytes
	return func() { gap = 0 }
}

const untouched = 0xA5

// FillGaps marks what no layer may write.
func (a *Arena) FillGaps(n *Network, tensors []Shape) {
	a.gaps(n, tensors, func(_ int, b []byte) {
		for i := range b {
			b[i] = untouched
		}
	})
}

// CheckGaps says which tensor was written past its end.
func (a *Arena) CheckGaps(n *Network, tensors []Shape) (err error) {
	a.gaps(n, tensors, func(t int, b []byte) {
		for i := range b {
			if b[i] != untouched && err == nil {
				err = fmt.Errorf("byte %d behind tensor %d, %v, was written", i, t, tensors[t])
			}
		}
	})
	return err
}

func (a *Arena) gaps(n *Network, tensors []Shape, f func(tensor int, b []byte)) {
	for t, s := range tensors {
		end := n.plan.at[t] + s.bytes()
		f(t, a.mem[end:end+gap])
	}
}
