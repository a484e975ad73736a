package infer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"vigil/infer"
	"vigil/infer/preset"
)

// variant is a precision variant as `good` would carry it; fused is a bundle of two liveness models.
const variant = `"variants": [{"precision": "int8", "dialect": "qdq-u8", "file": "d8.onnx", "calibration": "c",
  "gate": {"verdict": "passed", "reason": "", "dataset": "x", "metric": "accuracy", "fp32": 0.991, "variant": 0.99,
  "fp32_seconds": 0.01, "variant_seconds": 0.004, "machine": "m"}}], `

var withVariant = strings.NewReplacer(
	`"pre": {"name": "p"`, variant+`"pre": {"name": "p"`,
	`"files": {`, `"files": {"d8.onnx": {"sha256": "`+strings.Repeat("ab", 32)+`", "bytes": 3}, `,
).Replace(good)

// withOps has the variant with an operator of ours instead.
var withOps = strings.NewReplacer(`"precision": "int8"`, `"precision": "fp32"`, `"qdq-u8"`, `"vigil-ops", "operators": ["L2NormalizeQuantize"]`,
	`"calibration": "c"`, `"calibration": ""`).Replace(withVariant)

const live = `{"name": "live-%", "kind": "liveness", "weight": 2, "file": "d.onnx", "deadline_ms": 1,
  "inputs": [{"name": "in", "type": "float32", "shape": [1, 3, 8, 8]}], "outputs": [{"name": "out", "type": "float32", "shape": [3]}]}, `

var fused = strings.NewReplacer(
	`"stages": [`, `"stages": [`+strings.Replace(live, "%", "a", 1)+strings.Replace(live, "%", "b", 1),
	`"files": {`, `"liveness": {"score": 0.5, "bpcer": 0.1, "dataset": "x"}, "files": {`,
).Replace(good)

func TestStagesOfOneKindAreFused(t *testing.T) {
	m := parse(t, fused)
	list := m.StagesOf(infer.KindLiveness)
	if len(list) != 2 || list[0].Name != "live-a" || list[1].KindOf() != "liveness" || list[1].Weight != 2 {
		t.Errorf("%+v", list)
	}
	if m.Liveness.Score != 0.5 || m.Liveness.APCER != nil || *m.Liveness.BPCER != 0.1 {
		t.Errorf("%+v", m.Liveness)
	}
	if got := m.StagesOf("detect"); len(got) != 1 || got[0].Name != "detect" {
		t.Errorf("the kind of a stage without one is its name: %+v", got)
	}
}

func TestParseManifestRefusesVariantsAndKinds(t *testing.T) {
	for _, c := range []struct{ name, in, old, new, want string }{
		{"unknown precision", withVariant, `"precision": "int8"`, `"precision": "int4"`, `variants[0]: precision "int4": one of int8`},
		{"unknown dialect", withVariant, `"qdq-u8"`, `"qdq"`, `dialect "qdq": one of qdq-u8, qdq-s8`},
		{"file not listed", withVariant, `"file": "d8.onnx"`, `"file": "d9.onnx"`, `"d9.onnx" is not listed`},
		{"the float file", withVariant, `"file": "d8.onnx"`, `"file": "d.onnx"`, "the stage's own"},
		{"verdict", withVariant, `"passed"`, `"refused"`, "gate.verdict"},
		{"forced without a reason", withVariant, `"passed"`, `"forced"`, "says why"},
		{"negative latency", withVariant, `0.004`, `-1`, "latencies"},
		{"unknown field of a gate", withVariant, `"machine": "m"`, `"machine": "m", "x": 1`, `unknown field "x"`},
		{"operators in 8 bits", withOps, `"precision": "fp32"`, `"precision": "int8"`, "vigil-ops is of fp32"},
		{"quantised in float", withVariant, `"precision": "int8"`, `"precision": "fp32"`, "the others are of int8"},
		{"operators not named", withOps, `, "operators": ["L2NormalizeQuantize"]`, ``, "names them"},
		{"operators of a quantised graph", withVariant, `"qdq-u8"`, `"qdq-u8", "operators": ["L2NormalizeQuantize"]`, "no other does"},
		{"unknown operator", withOps, `["L2NormalizeQuantize"]`, `["L1Normalize"]`, `operator "L1Normalize": one of L2NormalizeQuantize`},
		{"operator twice", withOps, `["L2NormalizeQuantize"]`, `["L2NormalizeQuantize", "L2NormalizeQuantize"]`, "is there twice"},
		{"variants without a model", good, `"deadline_ms": 1}`, `"deadline_ms": 1, "variants": [{}]}`, "variants but no file"},
		{"kind without weight", fused, `"name": "live-b", "kind": "liveness", "weight": 2`, `"name": "live-b", "kind": "liveness"`, "needs a weight"},
		{"negative weight", fused, `"name": "live-b", "kind": "liveness", "weight": 2`, `"name": "live-b", "kind": "liveness", "weight": -1`, "needs a weight"},
		{"weight of one alone", good, `{"name": "align"`, `{"name": "align", "weight": 1`, "only stage of its kind"},
		{"kind with a space", good, `{"name": "align"`, `{"name": "align", "kind": "a b"`, `kind "a b"`},
		{"no threshold of liveness", fused, `"liveness": {"score": 0.5, "bpcer": 0.1, "dataset": "x"}, `, ``, "liveness: is missing"},
		{"liveness without a stage", good, `"files": {`, `"liveness": {"score": 0.5, "dataset": ""}, "files": {`, "no stage is of kind liveness"},
		{"score of liveness", fused, `"score": 0.5, "bpcer"`, `"score": 1, "bpcer"`, "liveness.score"},
		{"rate of liveness", fused, `"bpcer": 0.1`, `"bpcer": 1.1`, "liveness.bpcer"},
		{"kinds in format 1", fused, `"format": 2`, `"format": 1`, "need"},
		{"unpinned file", good, `"sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "bytes": 4`, ``, "sha256"},
		{"any name", good, `"name": "in"`, `"name": "*"`, "leaves open"},
		{"name of a tensor twice", good, `"outputs": [`, `"outputs": [{"name": "out", "type": "float32", "shape": [4]}, `, "used twice"},
		{"layout", good, `"shape": [4]`, `"shape": [4], "layout": "NHWC"`, "layout"},
	} {
		if strings.Count(c.in, c.old) != 1 {
			t.Fatalf("%s: %q is %d times in the manifest", c.name, c.old, strings.Count(c.in, c.old))
		}
		_, err := infer.ParseManifest([]byte(strings.Replace(c.in, c.old, c.new, 1)))
		if !errors.Is(err, infer.ErrManifest) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error about %q", c.name, err, c.want)
		}
	}
	m := parse(t, withVariant)
	m.Stages[0].Variants[0].Gate.Variant = math.NaN()
	if err := m.Validate(); err == nil || !strings.Contains(err.Error(), "finite") {
		t.Errorf("a figure that is no number: %v", err)
	}
	m = parse(t, withVariant)
	m.Stages[0].Variants = append(m.Stages[0].Variants, m.Stages[0].Variants[0])
	if err := m.Validate(); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a variant twice: %v", err)
	}
}

// TestFormat1IsStillRead: bundles that devices sealed before must open, and are the same bundle as the preset of today.
func TestFormat1IsStillRead(t *testing.T) {
	text, err := os.ReadFile("testdata/face-format1.json")
	if err != nil {
		t.Fatal(err)
	}
	m := parse(t, string(text))
	if m.Format != infer.ManifestFormat {
		t.Errorf("format %d in memory", m.Format)
	}
	now, err := preset.Load("face")
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(m)
	if b, _ := json.Marshal(now); !bytes.Equal(a, b) {
		t.Errorf("the preset has changed:\n%s\n%s", a, b)
	}
}

func TestChoose(t *testing.T) {
	plain, with := parse(t, good).Stage("detect"), parse(t, withVariant).Stage("detect")
	ops := parse(t, withOps).Stage("detect")
	forced := parse(t, strings.NewReplacer(`"passed"`, `"forced"`, `"reason": ""`, `"reason": "slower than float"`).Replace(withVariant)).Stage("detect")
	for _, c := range []struct {
		name      string
		stage     *infer.Stage
		prefers   []string
		file, why string
	}{
		{"no variants", plain, []string{infer.DialectCPU}, "d.onnx", "no variant of this stage"},
		{"passed", with, []string{infer.DialectCPU}, "d8.onnx", "its gate passed (accuracy: 0.99 against 0.991 in float; 2.5x as fast)"},
		{"second choice", with, []string{infer.DialectTensorRT, infer.DialectCPU}, "d8.onnx", "passed"},
		{"other dialect", with, []string{infer.DialectTensorRT}, "d.onnx", "it prefers qdq-s8; the bundle has qdq-u8"},
		{"without our operators", ops, []string{infer.DialectCPU}, "d.onnx", "the bundle has vigil-ops); for vigil-ops it would have to have our operators registered"},
		{"a runtime of floats", with, nil, "d.onnx", "it prefers none"},
		{"forced", forced, []string{infer.DialectCPU}, "d8.onnx", "refused it: slower than float"},
	} {
		got := c.stage.Choose(c.prefers)
		precision := map[string]string{"d.onnx": "float32", "d8.onnx": "int8"}[c.file]
		if got.File != c.file || got.Precision != precision || got.Stage != "detect" || !strings.Contains(got.Reason, c.why) {
			t.Errorf("%s: %+v, want %s because %q", c.name, got, c.file, c.why)
		}
	}
}

func TestRegistryNamesWhatThereIs(t *testing.T) {
	r := infer.Registry[int]{
		"two": func(*infer.Step) (int, error) { return 2, nil },
		"bad": func(*infer.Step) (int, error) { return 0, errors.New("of no use") },
	}
	if v, err := r.Make("pre", &infer.Step{Name: "two"}); v != 2 || err != nil {
		t.Errorf("%d, %v", v, err)
	}
	for name, s := range map[string]*infer.Step{
		`pre is missing: there are "bad", "two"`:            nil,
		`pre: unknown name "three": there are "bad", "two"`: {Name: "three"},
		`pre "bad": of no use`:                              {Name: "bad"},
	} {
		if _, err := r.Make("pre", s); err == nil || err.Error() != name {
			t.Errorf("%v, want %s", err, name)
		}
	}
}

// inspector is a runtime that knows one model.
type inspector struct{ in, out []infer.Tensor }

func (inspector) Name() string       { return "inspector" }
func (inspector) Dialects() []string { return nil }
func (inspector) Close() error       { return nil }
func (inspector) Load(context.Context, []byte, []infer.Tensor, []infer.Tensor) (infer.Engine, error) {
	return nil, errors.New("not used")
}
func (i inspector) Inspect([]byte) (in, out []infer.Tensor, err error) { return i.in, i.out, nil }

// TestOpenPreset: a preset that leaves a file open becomes a bundle that pins what was brought.
func TestOpenPreset(t *testing.T) {
	m, err := preset.Load("face-arcface512")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Validate(); err == nil {
		t.Fatal("it is valid as a bundle, before its file is there")
	}
	dir := fstest.MapFS{"arcface512.onnx": {Data: []byte("test")}}
	model, err := infer.FromDir(dir, m)
	if err != nil {
		t.Fatal(err)
	}
	if f := m.Files["arcface512.onnx"]; f.Bytes != 4 || !strings.HasPrefix(f.SHA256, "9f86d081") {
		t.Errorf("pinned %+v", f)
	}
	one := func(name string) []infer.Tensor { return []infer.Tensor{{Name: name}} }
	if err := model.Complete(inspector{one("a"), append(one("b"), one("c")...)}); err == nil || !strings.Contains(err.Error(), "2 outputs") {
		t.Errorf("a model of two outputs: %v", err)
	}
	m.Stage("embed").Inputs[0].Name = infer.AnyName
	if err := model.Complete(inspector{one("input.1"), one("683")}); err != nil {
		t.Fatal(err)
	}
	if s := m.Stage("embed"); s.Inputs[0].Name != "input.1" || s.Outputs[0].Name != "683" {
		t.Errorf("tensors %v %v", s.Inputs, s.Outputs)
	}
	text, _ := json.Marshal(m)
	if _, err := infer.ParseManifest(text); err != nil {
		t.Errorf("the bundle made from it is refused: %v", err)
	}
	if _, err := infer.FromDir(fstest.MapFS{}, mustPreset(t, "face-arcface512")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without the file: %v", err)
	}
}

func mustPreset(t *testing.T, name string) *infer.Manifest {
	t.Helper()
	m, err := preset.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
