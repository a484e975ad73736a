package vnni

import "vigil/infer"

// Load makes an engine of our kernels without a race.
func Load(onnx []byte, inputs, outputs []infer.Tensor) (infer.Engine, error) {
	e, err := load(onnx, inputs, outputs)
	if err != nil {
		return nil, err
	}
	return e, nil
}
