package face

import (
	"fmt"

	"vigil/infer"
	"vigil/kernels"
)

// normParams say how 8-bit channels become tensor values: (v - mean) / std.
type normParams struct {
	Order string     `json:"order"` // "BGR" or "RGB"
	Mean  [3]float32 `json:"mean"`  // in the order of the channels, of values 0..255
	Std   [3]float32 `json:"std"`
}

func (p normParams) norm() (kernels.Norm, error) {
	n := kernels.Norm{BGR: p.Order == "BGR", Mean: p.Mean}
	if p.Order != "BGR" && p.Order != "RGB" {
		return n, fmt.Errorf("order %q: \"RGB\" or \"BGR\"", p.Order)
	}
	for c, s := range p.Std {
		if !(s > 0) {
			return n, fmt.Errorf("std %v: must be positive", p.Std)
		}
		n.InvStd[c] = 1 / s
	}
	return n, nil
}

// readNorm makes the normalisation of a step that has no other parameters.
func readNorm(s *infer.Step) (kernels.Norm, error) {
	var p normParams
	if err := s.Decode(&p); err != nil {
		return kernels.Norm{}, err
	}
	return p.norm()
}
