package infer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Dialects of the graphs of variants. The quantised ones are explicit QuantizeLinear/DequantizeLinear pairs in standard ONNX.
const (
	// DialectCPU has asymmetric uint8 activations and symmetric int8 weights per channel: what ONNX Runtime's CPU
	// provider fuses.
	DialectCPU = "qdq-u8"
	// DialectTensorRT has symmetric int8 activations with zero point 0, symmetric int8 weights per channel and biases in
	// float: what TensorRT's explicit quantisation reads.
	DialectTensorRT = "qdq-s8"
	// DialectOps is the float graph with operators of ours in it, domain OpsDomain, which a runtime must know: it does what
	// is else done behind the model. The variant names them, for who reads its outputs must leave that out.
	DialectOps = "vigil-ops"
)

// OpsDomain is the ONNX domain of operators of ours; OpsVersion is its opset.
const (
	OpsDomain  = "vigil"
	OpsVersion = 1
)

// OpL2NormalizeQuantize scales every row of a float32 tensor [N, D] to the length 127 and rounds half to even: whole numbers
// from -127 to 127, still float32, bit for bit those that kernels/minutiae.Append stores. A row of zeros, or one with a NaN
// or an infinity in it, gives zeros.
const OpL2NormalizeQuantize = "L2NormalizeQuantize"

// Variant is another file for a stage: tensors of the same names and shapes, computed at a lower precision or with
// operators of ours.
type Variant struct {
	Precision   string   `json:"precision"`           // PrecisionINT8, or PrecisionFP32 in DialectOps
	Dialect     string   `json:"dialect"`             // DialectCPU, DialectTensorRT or DialectOps
	File        string   `json:"file"`                // listed under files
	Operators   []string `json:"operators,omitempty"` // of OpsDomain, in DialectOps only: what the file needs
	Calibration string   `json:"calibration"`         // method and data, in words; none in DialectOps
	Gate        Gate     `json:"gate"`
}

// Precisions of variants.
const (
	PrecisionINT8 = "int8"
	PrecisionFP32 = "fp32"
)

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

// Verdicts of a gate.
const (
	VerdictPassed = "passed"
	VerdictForced = "forced"
)

var (
	precisions = []string{PrecisionINT8, PrecisionFP32}
	dialects   = []string{DialectCPU, DialectTensorRT, DialectOps}
	operators  = []string{OpL2NormalizeQuantize}
)

// validateVariants checks the variants of a stage that has a file.
func (m *Manifest) validateVariants(s *Stage) error {
	for i, v := range s.Variants {
		twice := func(o Variant) bool { return o.Precision == v.Precision && o.Dialect == v.Dialect }
		_, listed := m.Files[v.File]
		var err error
		switch {
		case !slices.Contains(precisions, v.Precision):
			err = fmt.Errorf("precision %q: one of %s", v.Precision, strings.Join(precisions, ", "))
		case !slices.Contains(dialects, v.Dialect):
			err = fmt.Errorf("dialect %q: one of %s", v.Dialect, strings.Join(dialects, ", "))
		case (v.Dialect == DialectOps) != (v.Precision == PrecisionFP32):
			err = fmt.Errorf("precision %q in dialect %s: %s is of %s, the others are of %s", v.Precision, v.Dialect, DialectOps, PrecisionFP32, PrecisionINT8)
		case slices.ContainsFunc(s.Variants[:i], twice):
			err = fmt.Errorf("%s in dialect %s is there twice", v.Precision, v.Dialect)
		case !listed:
			err = fmt.Errorf("file %q is not listed under files", v.File)
		case v.File == s.File:
			err = fmt.Errorf("file %q is the stage's own", v.File)
		default:
			err = errors.Join(v.validateOperators(), v.Gate.validate())
		}
		if err != nil {
			return fmt.Errorf("variants[%d]: %w", i, err)
		}
	}
	return nil
}

// validateOperators checks that the operators are those of this version, each once, and named where they must be.
func (v *Variant) validateOperators() error {
	if (v.Dialect == DialectOps) != (len(v.Operators) > 0) {
		return fmt.Errorf("operators %q: a variant in dialect %s names them, no other does", v.Operators, DialectOps)
	}
	for i, op := range v.Operators {
		if !slices.Contains(operators, op) {
			return fmt.Errorf("operator %q: one of %s", op, strings.Join(operators, ", "))
		}
		if slices.Contains(v.Operators[:i], op) {
			return fmt.Errorf("operator %q is there twice", op)
		}
	}
	return nil
}

func (g *Gate) validate() error {
	switch {
	case g.Verdict != VerdictPassed && g.Verdict != VerdictForced:
		return fmt.Errorf("gate.verdict %q: %q or %q; a variant that was refused is not in a bundle", g.Verdict, VerdictPassed, VerdictForced)
	case g.Verdict == VerdictForced && g.Reason == "":
		return errors.New("gate.reason: a forced variant says why it was refused")
	case !finite(g.FP32, g.Variant, g.FP32Seconds, g.Seconds):
		return errors.New("gate: its figures must be finite numbers")
	case g.FP32Seconds < 0 || g.Seconds < 0:
		return errors.New("gate: latencies are not negative")
	}
	return nil
}

// Choice says which file of a stage a runtime loads, and why.
type Choice struct {
	Stage     string `json:"stage"`
	File      string `json:"file"`
	Precision string `json:"precision"`         // "float32", or that of a variant
	Dialect   string `json:"dialect,omitempty"` // of a variant
	// Operators are those of ours in the file: what they do is not to be done again behind the model.
	Operators []string `json:"operators,omitempty"`
	Reason    string   `json:"reason"` // in words
	// Kernels says what runs the file within the runtime, and why, in words; "" where a runtime has one way, or before it is loaded.
	Kernels string `json:"kernels,omitempty"`
}

// Choose picks the file of the stage for a runtime that runs these dialects best, the best first (DialectOps is among them
// only when our operators are registered): the first variant in
// the order of preference, for whatever is in a bundle has passed its gate or was forced through it; else the float file.
func (s *Stage) Choose(preferred []string) Choice {
	for _, d := range preferred {
		for _, v := range s.Variants {
			if v.Dialect != d {
				continue
			}
			return Choice{Stage: s.Name, File: v.File, Precision: v.Precision, Dialect: d, Operators: v.Operators, Reason: v.Gate.String()}
		}
	}
	c := Choice{Stage: s.Name, File: s.File, Precision: "float32", Reason: "the bundle has no variant of this stage"}
	if len(s.Variants) > 0 {
		var have []string
		for _, v := range s.Variants {
			have = append(have, v.Dialect)
		}
		wanted := "none"
		if len(preferred) > 0 {
			wanted = strings.Join(preferred, ", ")
		}
		c.Reason = fmt.Sprintf("no variant in a dialect that this runtime prefers (it prefers %s; the bundle has %s)", wanted, strings.Join(have, ", "))
		if slices.Contains(have, DialectOps) {
			c.Reason += "; for " + DialectOps + " it would have to have our operators registered"
		}
	}
	return c
}

// String is the verdict in words.
func (g Gate) String() string {
	text := fmt.Sprintf("its gate %s", g.Verdict)
	if g.Verdict == VerdictForced {
		text = "forced although its gate refused it: " + g.Reason
	}
	if g.Metric != "" {
		text += fmt.Sprintf(" (%s: %.4g against %.4g in float", g.Metric, g.Variant, g.FP32)
		if g.Seconds > 0 {
			text += fmt.Sprintf("; %.1fx as fast", g.FP32Seconds/g.Seconds)
		}
		text += ")"
	}
	return text
}
