// Package pb is the ONNX schema as Go types, generated from onnx.proto. It promises nothing beyond the encoding: what a
// message says is not checked here but in the package above, which alone should import it.
package pb

//go:generate go install google.golang.org/protobuf/cmd/protoc-gen-go
//go:generate protoc --go_out=. --go_opt=paths=source_relative onnx.proto
