// Package quant makes INT8 models: it folds a float model, measures the ranges of its tensors on samples, and writes
// explicit QuantizeLinear/DequantizeLinear graphs in two dialects, one for ONNX Runtime's CPU provider and one for
// TensorRT.
//
// Promises: the folded float model gives the answers of the original; both dialects come from one calibration; a float
// operator is dropped only where the quantiser behind it does the same exactly; what TensorRT reads obeys its rules, and
// CheckTensorRT proves it. Memory is bounded by one run of the model and a histogram per tensor, whatever the number of
// samples. Equal samples give equal files.
//
// It blocks while the model runs on the samples, owns what it loads, borrows runtime and samples, and writes no file. It
// does not decide whether INT8 may be used: that is what Judge answers, from figures that its caller measured.
package quant
