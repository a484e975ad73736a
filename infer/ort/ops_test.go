package ort_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os/exec"
	"runtime/debug"
	"strings"
	"testing"

	"vigil/infer"
	"vigil/infer/infertest"
	"vigil/infer/ort"
	"vigil/infer/quant"
	"vigil/infer/quant/onnx"
	"vigil/kernels/minutiae"
)

// rows is a tensor of rows of the models below.
func rows(name string, shape ...int64) []infer.Tensor {
	return []infer.Tensor{{Name: name, Type: "float32", Shape: shape}}
}

// plainModel passes rows through: y = x.
func plainModel(t testing.TB, shape ...int64) []byte {
	t.Helper()
	m := &onnx.Model{Opset: 17, Inits: map[string]*onnx.Tensor{},
		Inputs:  []onnx.Value{{Name: "x", Type: onnx.Float, Dims: onnx.Dims(shape...)}},
		Outputs: []onnx.Value{{Name: "y", Type: onnx.Float, Dims: onnx.Dims(shape...)}},
		Nodes:   []*onnx.Node{{Name: "same", Op: "Identity", Inputs: []string{"x"}, Outputs: []string{"y"}}}}
	return write(t, m)
}

func write(t testing.TB, m *onnx.Model) []byte {
	t.Helper()
	data, err := m.Write()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// opsModel is plainModel with the operator behind it.
func opsModel(t testing.TB, shape ...int64) []byte {
	t.Helper()
	data, err := quant.NormalizeQuantize(plainModel(t, shape...), "y")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// openIO loads a model of one input x and one output y of the same shape.
func openIO(t testing.TB, rt *ort.Runtime, data []byte, shape ...int64) infer.IO {
	t.Helper()
	eng, err := rt.Load(t.Context(), data, rows("x", shape...), rows("y", shape...))
	if err != nil {
		t.Fatal(err)
	}
	io, err := eng.NewIO()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mustClose(t, "io", io); mustClose(t, "engine", eng) })
	return io
}

func TestOurDeclarationsAgreeWithTheHeader(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/yalue/onnxruntime_go").Output()
	if err != nil {
		t.Fatal(err)
	}
	cc, err := exec.Command("go", "env", "CC").Output()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(strings.TrimSpace(string(cc)), "-fsyntax-only", "-Wall", "-Werror", "-I"+strings.TrimSpace(string(dir)), "-I.", "testdata/layout.c").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// hardRow is row i of the conformance test: sizes from denormal to the largest, values on the edge between two whole
// numbers, zeros, and what is no number.
func hardRow(r *rand.Rand, i int, row []float32) {
	scale := math.Pow(10, r.Float64()*60-35)
	for k := range row {
		row[k] = float32(r.NormFloat64() * scale)
	}
	at := r.IntN(len(row))
	switch i % 16 {
	case 0:
		clear(row)
	case 1:
		row[at] = float32(math.NaN())
	case 2:
		row[at] = float32(math.Inf(1 - 2*r.IntN(2)))
	case 3:
		row[at], row[r.IntN(len(row))] = float32(math.Inf(1)), float32(math.Inf(-1))
	case 4:
		row[at] = math.MaxFloat32
	case 5:
		clear(row)
		row[at] = math.SmallestNonzeroFloat32
	case 6: // one value, and a negative zero beside it
		clear(row)
		row[at], row[(at+1)%len(row)] = 127, float32(math.Copysign(0, -1))
	case 7: // a few small whole numbers
		clear(row)
		for k := range min(4, len(row)) {
			row[k] = float32(math.Copysign(float64(1+r.IntN(5)), r.Float64()-0.5))
		}
	case 8: // the same, of one size: 63.5 exactly, on the edge
		clear(row)
		for k := range min(4, len(row)) {
			row[k] = float32(math.Copysign(3, r.Float64()-0.5))
		}
	}
}

func TestOperatorEqualsTheReference(t *testing.T) {
	rt := infertest.Runtime(t)
	halves := 0
	for _, shape := range [][2]int64{{256, minutiae.DescriptorBytes}, {1, 1}, {1, 7}, {3, 33}, {64, 256}} {
		t.Run(fmt.Sprint(shape), func(t *testing.T) {
			n, d := int(shape[0]), int(shape[1])
			io := openIO(t, rt, opsModel(t, shape[:]...), shape[:]...)
			r := rand.New(rand.NewPCG(1, uint64(d)))
			want := make([]int8, d)
			for range max(1, 8192/n) {
				in := io.Input(0)
				for i := range n {
					hardRow(r, i+r.IntN(16), in[i*d:][:d])
				}
				if err := io.Run(t.Context()); err != nil {
					t.Fatal(err)
				}
				for i := range n {
					row, out := in[i*d:][:d], io.Output(0)[i*d:][:d]
					minutiae.Quantise(want, row)
					for k := range want {
						if want[k] == 64 || want[k] == -64 {
							halves++
						}
						if math.Float32bits(out[k]) != math.Float32bits(float32(want[k])) {
							t.Fatalf("row %v: value %d is %v, the reference gives %d", row, k, out[k], want[k])
						}
					}
				}
			}
		})
	}
	if halves == 0 {
		t.Error("no value lay on the edge between two whole numbers")
	}
}

func TestWithoutOperatorsThePlainFileRuns(t *testing.T) {
	rt, err := ort.Open(ort.Options{Library: infertest.Library(t), NoOperators: true})
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, "runtime", rt)
	data := opsModel(t, 4, 8)
	if _, err := rt.Load(t.Context(), data, rows("x", 4, 8), rows("y", 4, 8)); !errors.Is(err, ort.ErrNoOperators) {
		t.Errorf("load: %v", err)
	}
	if _, _, err := rt.Inspect(data); !errors.Is(err, ort.ErrNoOperators) {
		t.Errorf("inspect: %v", err)
	}
	stage := &infer.Stage{Name: "describe", File: "plain.onnx", Variants: []infer.Variant{{Precision: infer.PrecisionFP32, Dialect: infer.DialectOps,
		File: "ops.onnx", Operators: []string{infer.OpL2NormalizeQuantize}, Gate: infer.Gate{Verdict: infer.VerdictPassed}}}}
	if c := stage.Choose(rt.Dialects()); c.File != "plain.onnx" || c.Operators != nil || !strings.Contains(c.Reason, "our operators registered") {
		t.Errorf("without: %+v", c)
	}
	with := infertest.Runtime(t) // beside the other, in one library
	if c := stage.Choose(with.Dialects()); c.File != "ops.onnx" || len(c.Operators) != 1 {
		t.Errorf("with: %+v", c)
	}
	in, out, err := with.Inspect(data)
	if err != nil || len(in) != 1 || len(out) != 1 || in[0].String() != "x float32[4 8]" || out[0].String() != "y float32[4 8]" {
		t.Errorf("inspect: %v %v %v", in, out, err)
	}
}

func TestOperatorRefuses(t *testing.T) {
	rt := infertest.Runtime(t)
	read := func(shape ...int64) *onnx.Model {
		m, err := onnx.Read(opsModel(t, 4, 8))
		if err != nil {
			t.Fatal(err)
		}
		m.Inputs[0].Dims, m.Outputs[0].Dims = onnx.Dims(shape...), onnx.Dims(shape...)
		return m
	}
	io := openIO(t, rt, write(t, read(2, 3, 4)), 2, 3, 4)
	if err := io.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "two axes") {
		t.Errorf("three axes: %v", err)
	}
	for name, spoil := range map[string]func(m *onnx.Model){
		"an operator that is not there": func(m *onnx.Model) { m.Nodes[1].Op += "2" },
		"two inputs":                    func(m *onnx.Model) { m.Nodes[1].Inputs = append(m.Nodes[1].Inputs, "x") },
		"integers": func(m *onnx.Model) {
			m.Inputs[0].Type = onnx.Int32
			m.Nodes[0].Op = "Identity"
		},
	} {
		m := read(4, 8)
		spoil(m)
		eng, err := rt.Load(t.Context(), write(t, m), rows("x", 4, 8), rows("y", 4, 8))
		if err == nil {
			t.Errorf("%s: loaded", name)
			mustClose(t, name, eng)
		}
	}
}

// cycles opens a runtime, loads, runs and closes everything n times, and returns by how much the process grew.
func cycles(t *testing.T, n int, data []byte) (kib, files int) {
	t.Helper()
	lib := infertest.Library(t)
	one := func() {
		rt, err := ort.Open(ort.Options{Library: lib})
		if err != nil {
			t.Fatal(err)
		}
		eng, err := rt.Load(t.Context(), data, rows("x", 64, 64), rows("y", 64, 64))
		if err != nil {
			t.Fatal(err)
		}
		io, err := eng.NewIO()
		if err != nil {
			t.Fatal(err)
		}
		if err := io.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustClose(t, "io", io)
		mustClose(t, "engine", eng)
		mustClose(t, "runtime", rt)
	}
	for range 100 { // the allocators settle
		one()
	}
	debug.FreeOSMemory() // what Go's heap keeps is no leak
	before, filesBefore := resident(t)
	for range n {
		one()
	}
	debug.FreeOSMemory()
	after, filesAfter := resident(t)
	t.Logf("resident %d KiB before, %d KiB after %d cycles; %d open files before, %d after", before, after, n, filesBefore, filesAfter)
	return after - before, filesAfter - filesBefore
}

// TestOperatorsLeaveNothingBehind: a model with the operator grows the process by no more than the same model without it.
func TestOperatorsLeaveNothingBehind(t *testing.T) {
	keep := infertest.Runtime(t) // opening the library anew each time is not what is measured
	control, _ := cycles(t, 1000, plainModel(t, 64, 64))
	grown, files := cycles(t, 1000, opsModel(t, 64, 64))
	if grown > max(0, control)+6<<10 { // one tensor left behind in every cycle would be 16 MiB
		t.Errorf("resident memory grew by %d KiB, by %d KiB without the operator", grown, control)
	}
	if files > 0 {
		t.Errorf("%d open files are left", files)
	}
	mustClose(t, "the runtime that kept the library", keep)
	for range 3 { // now each opens the library and makes the domain anew
		cycles(t, 0, opsModel(t, 64, 64))
	}
}
