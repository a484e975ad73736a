package finger

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"vigil/infer"
	"vigil/infer/ort"
	"vigil/infer/quant"
	"vigil/infer/quant/onnx"
	"vigil/kernels/minutiae"
	"vigil/sensors"
)

// runtime opens ONNX Runtime from where `make setup` puts it; infertest imports the pipelines, so it cannot serve here.
func runtime(t testing.TB, o ort.Options) *ort.Runtime {
	t.Helper()
	if o.Library = os.Getenv("VIGIL_ORT_LIB"); o.Library == "" {
		o.Library = filepath.Join("..", "..", ".cache", "ort", "libonnxruntime.so.1")
	}
	rt, err := ort.Open(o)
	if errors.Is(err, ort.ErrNoLibrary) {
		t.Skip("no ONNX Runtime: run `make setup`, or set VIGIL_ORT_LIB")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rt.Close(); err != nil {
			t.Error(err)
		}
	})
	return rt
}

// Sizes of the networks below: those of the open bundle in the descriptions, a small picture.
const (
	side     = 128
	features = 32
	hidden   = 160
	samples  = 25*features + turns
)

// layer adds weights of random numbers and a node that reads them.
func layer(m *onnx.Model, r *rand.Rand, op, in, out string, span float64, dims ...int64) *onnx.Node {
	n, _ := onnx.Elements(dims)
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(r.NormFloat64() * span)
	}
	m.Inits[out+".w"] = onnx.FloatTensor(values, dims...)
	node := &onnx.Node{Name: out, Op: op, Inputs: []string{in, out + ".w"}, Outputs: []string{out}}
	m.Nodes = append(m.Nodes, node)
	return node
}

func value(name string, dims ...int64) onnx.Value {
	return onnx.Value{Name: name, Type: onnx.Float, Dims: onnx.Dims(dims...)}
}

func written(t testing.TB, m *onnx.Model) []byte {
	t.Helper()
	data, err := m.Write()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// networks are untrained ones: finger everywhere, minutiae where noise wants them, random descriptions.
func networks(t testing.TB) (extract, describe []byte) {
	t.Helper()
	r := rand.New(rand.NewPCG(5, 6))
	m := &onnx.Model{Opset: 17, Inits: map[string]*onnx.Tensor{}, Inputs: []onnx.Value{value("picture", 1, 1, side, side)},
		Outputs: []onnx.Value{value("cells", 1, channels, side/cell, side/cell), value("features", 1, features, side/cell, side/cell)}}
	cells := layer(m, r, "Conv", "picture", "cells", 0.3, channels, 1, cell, cell)
	bias := make([]float32, channels)
	bias[chMask], bias[chConfidence] = 50, 3
	m.Inits["bias"] = onnx.FloatTensor(bias, channels)
	cells.Inputs = append(cells.Inputs, "bias")
	maps := layer(m, r, "Conv", "picture", "features", 0.2, features, 1, cell, cell)
	for _, n := range []*onnx.Node{cells, maps} {
		n.Attrs.SetInts("strides", cell, cell)
	}
	extract = written(t, m)
	m = &onnx.Model{Opset: 17, Inits: map[string]*onnx.Tensor{}, Inputs: []onnx.Value{value("samples", minutiae.Max, samples)},
		Outputs: []onnx.Value{value("descriptors", minutiae.Max, minutiae.DescriptorBytes)}}
	layer(m, r, "MatMul", "samples", "first", 0.05, samples, hidden)
	m.Nodes = append(m.Nodes, &onnx.Node{Name: "relu", Op: "Relu", Inputs: []string{"first"}, Outputs: []string{"relu"}})
	layer(m, r, "MatMul", "relu", "descriptors", 0.1, hidden, minutiae.DescriptorBytes)
	return extract, written(t, m)
}

// bundle has the operator's variant of the describing stage beside the plain file.
func bundle(t testing.TB, extract, describe []byte, in, cells, maps infer.Tensor) *infer.Model {
	t.Helper()
	withOps, err := quant.NormalizeQuantize(describe, "descriptors")
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{"extract.onnx": {Data: extract}, "describe.onnx": {Data: describe}, "describe-ops.onnx": {Data: withOps}}
	rows := func(name string, n int64) infer.Tensor {
		return infer.Tensor{Name: name, Type: "float32", Shape: []int64{minutiae.Max, n}}
	}
	m := &infer.Manifest{Format: infer.ManifestFormat, ID: "finger-ops", Modality: "finger", Title: "t", Licence: "none",
		Template:   infer.TemplateSpec{Type: "minutiae", Dimension: minutiae.Bytes},
		Thresholds: map[string]infer.Threshold{}, Files: map[string]infer.FileSpec{}}
	for _, op := range []string{"verify", "identify", "duplicate"} {
		m.Thresholds[op] = infer.Threshold{Score: 0.5, FMR: 0.001, DataSet: "none"}
	}
	m.Stages = []infer.Stage{
		{Name: StageExtract, File: "extract.onnx", DeadlineMS: 1000, Inputs: []infer.Tensor{in}, Outputs: []infer.Tensor{cells, maps},
			Pre: &infer.Step{Name: "local-normalize"}, Post: &infer.Step{Name: "minutiae-cells", Params: json.RawMessage(`{"score": 0.5, "radius": 6}`)}},
		{Name: StageQuality, DeadlineMS: 5},
		{Name: StageDescribe, File: "describe.onnx", DeadlineMS: 1000, Pre: &infer.Step{Name: "oriented-grid"},
			Inputs: []infer.Tensor{rows("samples", samples)}, Outputs: []infer.Tensor{rows("descriptors", minutiae.DescriptorBytes)},
			Variants: []infer.Variant{{Precision: infer.PrecisionFP32, Dialect: infer.DialectOps, File: "describe-ops.onnx",
				Operators: []string{infer.OpL2NormalizeQuantize}, Gate: infer.Gate{Verdict: infer.VerdictForced, Reason: "a test"}}}},
	}
	for name, f := range files {
		sum := sha256.Sum256(f.Data)
		m.Files[name] = infer.FileSpec{SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(f.Data))}
	}
	if err := m.Validate(); err != nil {
		t.Fatal(err)
	}
	model, err := infer.FromDir(files, m)
	if err != nil {
		t.Fatal(err)
	}
	return model
}

func untrained(t testing.TB) *infer.Model {
	t.Helper()
	extract, describe := networks(t)
	tensor := func(name string, c, s int64) infer.Tensor {
		return infer.Tensor{Name: name, Type: "float32", Shape: []int64{1, c, s, s}}
	}
	return bundle(t, extract, describe, tensor("picture", 1, side), tensor("cells", channels, side/cell), tensor("features", features, side/cell))
}

func pipeline(t testing.TB, m *infer.Model, o ort.Options) *Pipeline {
	t.Helper()
	p, err := New(t.Context(), runtime(t, o), m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// stripes is a frame of ridges in a direction, with noise.
func stripes(seed uint64) *sensors.Frame {
	r := rand.New(rand.NewPCG(seed, 9))
	data, dir := make([]byte, side*side), r.Float64()*math.Pi
	for i := range data {
		along := float64(i%side)*math.Cos(dir) + float64(i/side)*math.Sin(dir)
		data[i] = byte(128 + 80*math.Sin(along*2*math.Pi/9) + 40*(r.Float64()-0.5))
	}
	return &sensors.Frame{Sensor: "test", Width: side, Height: side, Format: sensors.Gray8, Planes: [2]sensors.Plane{{Data: data, StrideBytes: side}}}
}

// TestTemplatesAreTheSameWithAndWithoutTheOperator: every bit, and the operator's file really runs.
func TestTemplatesAreTheSameWithAndWithoutTheOperator(t *testing.T) {
	m := untrained(t)
	plain, ops := pipeline(t, m, ort.Options{NoOperators: true}), pipeline(t, m, ort.Options{})
	if f := plain.describe.model.Choice.File; f != "describe.onnx" {
		t.Errorf("without operators %s runs", f)
	}
	if f := ops.describe.model.Choice.File; f != "describe-ops.onnx" {
		t.Errorf("with operators %s runs", f)
	}
	a, b := plain.NewResult(), ops.NewResult()
	total := 0
	for seed := range uint64(40) {
		f := stripes(seed)
		for p, r := range map[*Pipeline]*Result{plain: a, ops: b} {
			if err := p.Process(t.Context(), f, 0, r); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(a.Values, b.Values) || a.Minutiae != b.Minutiae {
			t.Fatalf("frame %d: the templates differ (%d and %d minutiae)", seed, a.Minutiae, b.Minutiae)
		}
		total += a.Minutiae
	}
	if total < 40 {
		t.Errorf("%d minutiae in 40 frames: nothing was compared", total)
	}
	t.Logf("%d descriptions are the same", total)
}

// builtIn is the describing network of the open bundle, nil where it is not there.
func builtIn(t testing.TB) (data []byte) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join("..", "builtin"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "finger_describe.onnx" {
			data, err = os.ReadFile(path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return data
}

// BenchmarkDescribe compares the describing network with Go's quantisation behind it against the network with the operator
// and the copy that is left, in pairs: "plain/ops" is above 1 where the operator pays.
func BenchmarkDescribe(b *testing.B) {
	extract, describe := networks(b)
	if data := builtIn(b); data != nil {
		describe = data
	}
	tensor := func(name string, c, s int64) infer.Tensor {
		return infer.Tensor{Name: name, Type: "float32", Shape: []int64{1, c, s, s}}
	}
	m := bundle(b, extract, describe, tensor("picture", 1, side), tensor("cells", channels, side/cell), tensor("features", features, side/cell))
	sides := []*describer{pipeline(b, m, ort.Options{NoOperators: true}).describe, pipeline(b, m, ort.Options{}).describe}
	r := rand.New(rand.NewPCG(3, 4))
	for i := range sides[0].model.IO.Input(0) {
		v := float32(r.NormFloat64())
		sides[0].model.IO.Input(0)[i], sides[1].model.IO.Input(0)[i] = v, v
	}
	row := make([]int8, minutiae.Bytes)
	one := func(d *describer) time.Duration {
		start := time.Now()
		if err := d.model.IO.Run(b.Context()); err != nil {
			b.Fatal(err)
		}
		minutiae.Clear(row)
		for i := range minutiae.Max {
			d.append(row, minutiae.Minutia{X: 1, Y: 1}, d.model.IO.Output(0)[i*minutiae.DescriptorBytes:][:minutiae.DescriptorBytes])
		}
		return time.Since(start)
	}
	var took [2][]time.Duration
	for pair := 0; b.Loop(); pair++ {
		for k := range sides { // each goes first as often as the other
			k ^= pair & 1
			took[k] = append(took[k], one(sides[k]))
		}
	}
	ratios := make([]float64, len(took[0]))
	for i := range ratios {
		ratios[i] = took[0][i].Seconds() / took[1][i].Seconds()
	}
	slices.Sort(ratios)
	for k := range took {
		slices.Sort(took[k])
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ratios[len(ratios)/2], "plain/ops")
	b.ReportMetric(float64(took[0][len(took[0])/2].Nanoseconds())/1e3, "µs-plain")
	b.ReportMetric(float64(took[1][len(took[1])/2].Nanoseconds())/1e3, "µs-ops")
}
