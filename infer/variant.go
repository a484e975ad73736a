package infer

// Dialects of quantised graphs. Both are explicit QuantizeLinear/DequantizeLinear pairs in standard ONNX.
const (
	// DialectCPU has asymmetric uint8 activations and symmetric int8 weights per channel: what ONNX Runtime's CPU
	// provider fuses.
	DialectCPU = "qdq-u8"
	// DialectTensorRT has symmetric int8 activations with zero point 0, symmetric int8 weights per channel and biases in
	// float: what TensorRT's explicit quantisation reads.
	DialectTensorRT = "qdq-s8"
)

// Variant is another file for a stage: the same tensors, computed at a lower precision.
type Variant struct {
	Precision   string `json:"precision"`   // "int8"
	Dialect     string `json:"dialect"`     // DialectCPU or DialectTensorRT
	File        string `json:"file"`        // listed under files
	Calibration string `json:"calibration"` // method and data, in words
	Gate        Gate   `json:"gate"`
}

// Gate is the evidence on which a variant was let into the bundle. A variant that was refused is not in the bundle.
type Gate struct {
	Verdict     string  `json:"verdict"` // "passed", or "forced": in the bundle although the gate refused it
	Reason      string  `json:"reason"`  // in words; for "forced", why it was refused
	DataSet     string  `json:"dataset"` // what the accuracy was measured on
	Metric      string  `json:"metric"`  // what FP32 and Variant are, for example "accuracy at the best threshold"
	FP32        float64 `json:"fp32"`
	Variant     float64 `json:"variant"`
	FP32Seconds float64 `json:"fp32_seconds"` // median latency of one run at batch 1
	Seconds     float64 `json:"variant_seconds"`
	Machine     string  `json:"machine"` // processor and runtime that the latency was measured on
}
