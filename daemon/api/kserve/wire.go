package kserve

import "encoding/json"

// HeaderLength is the header that gives the length of the JSON before binary tensors.
const HeaderLength = "Inference-Header-Content-Length"

const fp32 = "FP32"

// Failure is the body of an error.
type Failure struct {
	Error string `json:"error"`
}

// ServerMetadata describes the server.
type ServerMetadata struct {
	Name       string   `json:"name"`
	Version    string   `json:"version"`
	Extensions []string `json:"extensions"`
}

// Extensions of the protocol that there are.
var Extensions = []string{"binary_tensor_data"}

// ModelMetadata describes a model.
type ModelMetadata struct {
	Name     string           `json:"name"`
	Versions []string         `json:"versions"`
	Platform string           `json:"platform"`
	Inputs   []TensorMetadata `json:"inputs"`
	Outputs  []TensorMetadata `json:"outputs"`
}

// TensorMetadata describes a tensor.
type TensorMetadata struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"`
}

// Request is the JSON of an inference request. Parameters that are not named here mean nothing and are passed over, as the
// protocol wants it.
type Request struct {
	ID         string     `json:"id,omitempty"`
	Parameters Parameters `json:"parameters,omitzero"`
	Inputs     []Input    `json:"inputs" schema:"minitems=1"`
	Outputs    []Output   `json:"outputs,omitempty"`

	binary map[string][]byte // what lies behind the JSON, by the name of the input
}

// Parameters of a request, of an input and of an output.
type Parameters struct {
	BinaryDataOutput bool   `json:"binary_data_output,omitempty" doc:"of a request: all outputs in binary"`
	BinaryDataSize   *int64 `json:"binary_data_size,omitempty" schema:"min=0" doc:"of a tensor: its bytes behind the JSON"`
	BinaryData       *bool  `json:"binary_data,omitempty" doc:"of an output that is asked for: in binary"`
}

// Input is one tensor of a request.
type Input struct {
	Name       string          `json:"name"`
	Shape      []int64         `json:"shape"`
	Datatype   string          `json:"datatype" schema:"enum=FP32"`
	Parameters Parameters      `json:"parameters,omitzero"`
	Data       json.RawMessage `json:"data,omitempty" doc:"numbers in row-major order, nested or not"`
}

// Output names a tensor that is asked for.
type Output struct {
	Name       string     `json:"name"`
	Parameters Parameters `json:"parameters,omitzero"`
}

// Response is the JSON of an answer.
type Response struct {
	ModelName    string         `json:"model_name"`
	ModelVersion string         `json:"model_version"`
	ID           string         `json:"id,omitempty"`
	Outputs      []OutputTensor `json:"outputs"`
}

// OutputTensor is one tensor of an answer.
type OutputTensor struct {
	Name       string     `json:"name"`
	Datatype   string     `json:"datatype"`
	Shape      []int64    `json:"shape"`
	Parameters Parameters `json:"parameters,omitzero"`
	Data       []float32  `json:"data,omitempty"`
}
