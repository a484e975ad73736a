// Package fake is a runtime whose models a test plays, with a face bundle and pictures for it, so that policy can be tested
// without ONNX Runtime, models or photographs. It is imported from tests only.
//
// Promises: what a model answers depends on its input alone unless a test plays it otherwise, so that a picture says what
// will come of it. A Runtime is safe for concurrent use; it blocks on nothing and counts what it opens and closes.
package fake

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"vigil/infer"
)

// Runtime is a runtime whose models a test plays. A model is known by its bytes, which are a name such as "fake detector",
// not ONNX. It implements infer.Runtime and infer.Inspector, and counts what it opens and closes.
type Runtime struct {
	// Prefers is what Dialects answers.
	Prefers []string

	mu           sync.Mutex
	models       map[string]func(in, out [][]float32) error
	runs         map[string]int
	open, closed int
}

// New is a runtime that plays the models of Manifest.
func New() *Runtime {
	f := &Runtime{models: map[string]func(in, out [][]float32) error{}, runs: map[string]int{}}
	f.Play("fake detector", detectOne)
	f.Play("fake embedder", embedRed)
	f.Play("fake liveness near", refuseBlue)
	f.Play("fake liveness wide", refuseBlue)
	return f
}

// Play makes fn answer for the model of these bytes: it fills the outputs from the inputs.
func (f *Runtime) Play(model string, fn func(in, out [][]float32) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.models[model] = fn
}

// Runs is how often a model ran, warm-ups included.
func (f *Runtime) Runs(model string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.runs[model]
}

// Leaked is how many engines and tensors are open.
func (f *Runtime) Leaked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open - f.closed
}

// Name implements infer.Runtime.
func (f *Runtime) Name() string { return "fake" }

// Dialects implements infer.Runtime.
func (f *Runtime) Dialects() []string { return f.Prefers }

// Close implements infer.Runtime.
func (f *Runtime) Close() error { return nil }

// Inspect implements infer.Inspector: every model has one input "x" and one output "y".
func (f *Runtime) Inspect([]byte) (inputs, outputs []infer.Tensor, err error) {
	return []infer.Tensor{{Name: "x"}}, []infer.Tensor{{Name: "y"}}, nil
}

// Load implements infer.Runtime.
func (f *Runtime) Load(ctx context.Context, model []byte, inputs, outputs []infer.Tensor) (infer.Engine, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := string(model)
	if f.models[name] == nil {
		return nil, fmt.Errorf("the fake runtime plays no model %.40q", name)
	}
	f.open++
	return &engine{f: f, name: name, inputs: inputs, outputs: outputs}, ctx.Err()
}

type engine struct {
	f               *Runtime
	name            string
	inputs, outputs []infer.Tensor
}

// NewIO implements infer.Engine.
func (e *engine) NewIO() (infer.IO, error) {
	io := &tensors{e: e}
	for _, t := range e.inputs {
		io.in = append(io.in, make([]float32, t.Elements()))
	}
	for _, t := range e.outputs {
		io.out = append(io.out, make([]float32, t.Elements()))
	}
	e.f.mu.Lock()
	defer e.f.mu.Unlock()
	e.f.open++
	return io, nil
}

// Close implements infer.Engine.
func (e *engine) Close() error { return e.f.gone() }

func (f *Runtime) gone() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed++
	return nil
}

type tensors struct {
	e       *engine
	in, out [][]float32
}

// Input implements infer.IO.
func (io *tensors) Input(i int) []float32 { return io.in[i] }

// Output implements infer.IO.
func (io *tensors) Output(i int) []float32 { return io.out[i] }

// Close implements infer.IO.
func (io *tensors) Close() error { return io.e.f.gone() }

// Run implements infer.IO.
func (io *tensors) Run(ctx context.Context) error {
	f := io.e.f
	f.mu.Lock()
	f.runs[io.e.name]++
	fn := f.models[io.e.name]
	f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	return fn(io.in, io.out)
}

// detectSide is the input of the fake detector in pixels, a multiple of 32.
const detectSide = 64

// detectOne finds one upright face in the middle of every picture that is not black, half as wide as the picture.
func detectOne(in, out [][]float32) error {
	for _, o := range out {
		clear(o)
	}
	if mean(in[0]) < 1 {
		return nil
	}
	const cells, stride = detectSide / 8, 8
	at := cells/2*cells + cells/2 // the cell whose corner is the middle of the picture
	out[0][at], out[3][at] = 0.9, 0.9
	const side = detectSide / 2 / stride // in cells
	out[6][4*at+2], out[6][4*at+3] = float32(math.Log(side)), float32(math.Log(side))
	for j, v := range []float32{0.34, 0.46, 0.66, 0.46, 0.5, 0.64, 0.37, 0.82, 0.63, 0.82} {
		out[9][10*at+j] = (v - 0.5) * side
	}
	return nil
}

// embedRed makes people by the red of the picture: eight of them, whose templates are at right angles.
func embedRed(in, out [][]float32) error {
	for i := range out[0] {
		out[0][i] = 0.01
	}
	red := in[0][:len(in[0])/3]
	out[0][min(int(mean(red)/32), 7)] = 1
	return nil
}

// refuseBlue takes pictures with much blue for attacks, in tensors of the order BGR: class 1 is bona fide.
func refuseBlue(in, out [][]float32) error {
	blue := mean(in[0][:len(in[0])/3])
	out[0][0], out[0][1], out[0][2] = 0, (128-blue)/16, 0
	return nil
}

func mean(v []float32) float32 {
	var sum float64
	for _, x := range v {
		sum += float64(x)
	}
	return float32(sum / float64(len(v)))
}

// Picture is a PNG for the fake models: person 0..7, alive or an attack, sharp enough or a blur that is too poor to be
// judged. seed makes pictures of one kind differ.
func Picture(t testing.TB, person int, alive, sharp bool, seed uint64) []byte {
	t.Helper()
	const side = 320
	rnd := rand.New(rand.NewPCG(seed, 1))
	im := image.NewNRGBA(image.Rect(0, 0, side, side))
	blue := uint8(20)
	if !alive {
		blue = 240
	}
	for i := range side * side {
		green := uint8(120)
		if sharp {
			green = uint8(40 + rnd.UintN(160))
		}
		im.SetNRGBA(i%side, i/side, color.NRGBA{R: uint8(person*32 + 16), G: green, B: blue, A: 255})
	}
	var b bytes.Buffer
	if err := png.Encode(&b, im); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Manifest describes the fake models as a face bundle, with liveness (two models fused) or without.
func Manifest(id string, liveness bool) *infer.Manifest {
	step := func(name, params string) *infer.Step { return &infer.Step{Name: name, Params: json.RawMessage(params)} }
	picture := func(side int64) []infer.Tensor {
		return []infer.Tensor{{Name: "x", Type: "float32", Shape: []int64{1, 3, side, side}, Layout: "NCHW"}}
	}
	norm := func(order string) string { return `"order":"` + order + `","mean":[0,0,0],"std":[1,1,1]` }
	m := &infer.Manifest{
		Format: infer.ManifestFormat, ID: id, Modality: "face", Title: "fake models", Licence: "none",
		Template: infer.TemplateSpec{Dimension: 32, Type: "int8"}, Files: map[string]infer.FileSpec{},
		Thresholds: map[string]infer.Threshold{},
		Stages: []infer.Stage{
			{Name: "detect", File: "detect.onnx", Inputs: picture(detectSide), Pre: step("letterbox", "{"+norm("BGR")+"}"),
				Post: step("yunet", `{"score":0.6,"iou":0.3}`), DeadlineMS: 50},
			{Name: "align", Pre: step("similarity5", `{"size":64}`), DeadlineMS: 50},
			{Name: "quality", DeadlineMS: 50},
			{Name: "embed", File: "embed.onnx", Inputs: picture(64), Outputs: []infer.Tensor{{Name: "y", Type: "float32", Shape: []int64{1, 32}}},
				Pre: step("normalize", "{"+norm("RGB")+"}"), Post: step("l2", "{}"), DeadlineMS: 50},
		},
	}
	for _, o := range []struct {
		name  string
		width int64
	}{{"cls", 1}, {"obj", 1}, {"bbox", 4}, {"kps", 10}} {
		for _, s := range []int64{8, 16, 32} {
			m.Stages[0].Outputs = append(m.Stages[0].Outputs, infer.Tensor{
				Name: fmt.Sprintf("%s_%d", o.name, s), Type: "float32", Shape: []int64{1, (detectSide / s) * (detectSide / s), o.width}})
		}
	}
	for _, op := range []string{"verify", "identify", "duplicate"} {
		m.Thresholds[op] = infer.Threshold{Score: 0.5, FMR: 1, DataSet: "none"}
	}
	if liveness {
		m.Liveness = &infer.Liveness{Score: 0.5, DataSet: "none"}
		for _, name := range []string{"near", "wide"} {
			m.Stages = append(m.Stages, infer.Stage{
				Name: "liveness-" + name, Kind: infer.KindLiveness, Weight: 1, File: "liveness-" + name + ".onnx", Inputs: picture(16),
				Outputs: []infer.Tensor{{Name: "y", Type: "float32", Shape: []int64{1, 3}}}, DeadlineMS: 50,
				Pre: step("box-inside", `{"scale":2,`+norm("BGR")+"}"), Post: step("softmax", `{"bona_fide":1}`),
			})
		}
	}
	return m
}

// weights are the files of Manifest.
var weights = map[string]string{
	"detect.onnx": "fake detector", "embed.onnx": "fake embedder",
	"liveness-near.onnx": "fake liveness near", "liveness-wide.onnx": "fake liveness wide",
}

// Write writes a bundle of fake models into a new folder: the files that the stages and variants of the manifest name,
// pinned there, and bundle.json. extra holds files beside those of Manifest.
func Write(t testing.TB, m *infer.Manifest, extra map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, content string) {
		sum := sha256.Sum256([]byte(content))
		m.Files[name] = infer.FileSpec{SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(content))}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range m.Stages {
		if content, ok := weights[m.Stages[i].File]; ok {
			write(m.Stages[i].File, content)
		}
	}
	for name, content := range extra {
		write(name, content)
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, infer.ManifestName), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
