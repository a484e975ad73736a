// Package onnx reads, checks, rewrites and writes ONNX models.
//
// Promises: Read accepts hostile bytes in bounded memory and time, and what it accepts is a graph in topological order in
// which every tensor is defined exactly once and every initialiser holds as many bytes as its shape says. What it refuses
// is refused with an error that wraps ErrModel, names the node or tensor, and says what would help. Write gives bytes that
// Read accepts again; equal graphs give equal bytes.
//
// A Model belongs to one goroutine at a time. Nothing here runs a model, opens a file or infers shapes: those who need the
// values of a tensor run the model (see the package above). Subgraphs (If, Loop, Scan), functions, sparse and external
// tensors are refused.
package onnx
