// Package ort runs models on ONNX Runtime.
//
// Promises: models are loaded from memory; tensors live outside the Go heap at fixed, 64-byte aligned addresses, are left
// out of core dumps, are bound once and wiped on Close. Run blocks its goroutine in C and allocates nothing in Go. The
// library is opened once per process: a second Open while one is in use shares it, and must name the same file.
// ONNX Runtime's own threads never spin when idle. Operators of ours (infer.OpsDomain) are compiled in, in C, and known to
// the sessions of models that have them; what they answer is bit for bit what the Go code answers that they stand for.
//
// It owns the environment, the sessions and the tensors. It does not choose a provider and runs on the CPU only.
package ort

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"unsafe"

	ortgo "github.com/yalue/onnxruntime_go"
	"golang.org/x/sys/unix"

	"vigil/infer"
)

// Options configures a runtime.
type Options struct {
	Library string // path of libonnxruntime.so; "" searches, see Find
	Threads int    // threads per engine; 0 means 1
	// NoOperators leaves operators of ours out: models that have them are refused, and stages run their plain files.
	NoOperators bool
}

// ErrNoLibrary means that no ONNX Runtime was found.
var ErrNoLibrary = errors.New("ONNX Runtime library not found")

// env is the one ONNX Runtime environment of the process, a property of the C library itself.
var env struct {
	sync.Mutex
	users int
	path  string
	ops   operators
}

// Find returns the library to use: path if given, else VIGIL_ORT_LIB, else the first that exists of the places where the
// package and `make setup` put it. The error wraps ErrNoLibrary and says what was tried.
func Find(path string) (string, error) {
	if path == "" {
		path = os.Getenv("VIGIL_ORT_LIB")
	}
	if path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%w: %w: set VIGIL_ORT_LIB or runtime.library to a libonnxruntime.so.1 of version 1.24 or later", ErrNoLibrary, err)
		}
		return path, nil
	}
	places := []string{"/usr/lib/vigil/libonnxruntime.so.1", "/usr/local/lib/libonnxruntime.so.1"}
	if exe, err := os.Executable(); err == nil {
		places = append(places, filepath.Join(filepath.Dir(exe), "..", ".cache", "ort", "libonnxruntime.so.1"))
	}
	places = append(places, filepath.Join(".cache", "ort", "libonnxruntime.so.1"))
	for _, p := range places {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%w in %v: run `make setup`, or set VIGIL_ORT_LIB to a libonnxruntime.so.1 of version 1.24 or later", ErrNoLibrary, places)
}

// Runtime is ONNX Runtime on the CPU. It implements infer.Runtime.
type Runtime struct {
	threads   int
	version   string
	operators bool // ours are registered
	once      sync.Once
}

// Open loads the library.
func Open(o Options) (*Runtime, error) {
	path, err := Find(o.Library)
	if err != nil {
		return nil, err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil { // one file has many names
		return nil, fmt.Errorf("cannot open ONNX Runtime: %w", err)
	}
	env.Lock()
	defer env.Unlock()
	if env.users > 0 && env.path != path {
		return nil, fmt.Errorf("ONNX Runtime is already loaded from %s: one process cannot load %s as well", env.path, path)
	}
	if env.users == 0 {
		ortgo.SetSharedLibraryPath(path)
		if err := ortgo.InitializeEnvironment(ortgo.WithLogLevelFatal()); err != nil {
			return nil, fmt.Errorf("cannot load ONNX Runtime from %s: %w", path, err)
		}
		if err := env.ops.register(path); err != nil {
			return nil, errors.Join(err, ortgo.DestroyEnvironment())
		}
		env.path = path
	}
	env.users++
	return &Runtime{threads: max(1, o.Threads), version: ortgo.GetVersion(), operators: !o.NoOperators}, nil
}

// Name implements infer.Runtime.
func (r *Runtime) Name() string { return "onnxruntime " + r.version + " CPU" }

// Dialects implements infer.Runtime: Dialects, without infer.DialectOps where operators of ours are not registered.
func (r *Runtime) Dialects() []string {
	if r.operators {
		return Dialects
	}
	return slices.DeleteFunc(slices.Clone(Dialects), func(d string) bool { return d == infer.DialectOps })
}

// Dialects are those that ONNX Runtime's CPU provider runs best: what it fuses to 8 bits, then operators of ours.
var Dialects = []string{infer.DialectCPU, infer.DialectOps}

// Close gives up the library; the last user unloads it.
func (r *Runtime) Close() error {
	var err error
	r.once.Do(func() {
		env.Lock()
		defer env.Unlock()
		if env.users--; env.users == 0 {
			env.ops.close()
			err = ortgo.DestroyEnvironment()
		}
	})
	return err
}

// Load implements infer.Runtime.
func (r *Runtime) Load(ctx context.Context, onnx []byte, inputs, outputs []infer.Tensor) (infer.Engine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	opts, info, err := r.prepare(onnx)
	if err != nil {
		return nil, err
	}
	defer opts.Destroy()
	haveIn, haveOut, err := info()
	if err != nil {
		return nil, fmt.Errorf("ONNX Runtime refuses the model: %w", err)
	}
	if err := match("input", inputs, haveIn); err != nil {
		return nil, err
	}
	if err := match("output", outputs, haveOut); err != nil {
		return nil, err
	}
	session, err := ortgo.NewDynamicAdvancedSessionWithONNXData(onnx, names(inputs), names(outputs), opts)
	if err != nil {
		return nil, fmt.Errorf("ONNX Runtime refuses the model: %w", err)
	}
	return &engine{session: session, inputs: inputs, outputs: outputs}, nil
}

// Inspect implements infer.Inspector.
func (r *Runtime) Inspect(onnx []byte) (inputs, outputs []infer.Tensor, err error) {
	opts, info, err := r.prepare(onnx)
	if err != nil {
		return nil, nil, err
	}
	defer opts.Destroy()
	in, out, err := info()
	if err != nil {
		return nil, nil, fmt.Errorf("ONNX Runtime refuses the model: %w", err)
	}
	return tensors(in), tensors(out), nil
}

func tensors(list []ortgo.InputOutputInfo) (out []infer.Tensor) {
	for _, i := range list {
		kind := i.DataType.String()
		if i.DataType == ortgo.TensorElementDataTypeFloat {
			kind = "float32"
		}
		out = append(out, infer.Tensor{Name: i.Name, Type: kind, Shape: i.Dimensions})
	}
	return out
}

func (r *Runtime) sessionOptions() (*ortgo.SessionOptions, error) {
	o, err := ortgo.NewSessionOptions()
	if err != nil {
		return nil, fmt.Errorf("cannot make session options: %w", err)
	}
	err = errors.Join(
		o.SetIntraOpNumThreads(r.threads),
		o.SetInterOpNumThreads(1),
		o.SetGraphOptimizationLevel(ortgo.GraphOptimizationLevelEnableAll),
		o.AddSessionConfigEntry("session.intra_op.allow_spinning", "0"),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot set session options: %w", err), o.Destroy())
	}
	return o, nil
}

func names(ts []infer.Tensor) []string {
	out := make([]string, len(ts))
	for i, t := range ts {
		out[i] = t.Name
	}
	return out
}

// match checks the promised tensors against those of the model; a dynamic axis of the model (-1) fits every size.
func match(kind string, want []infer.Tensor, have []ortgo.InputOutputInfo) error {
	for _, w := range want {
		i := slices.IndexFunc(have, func(h ortgo.InputOutputInfo) bool { return h.Name == w.Name })
		if i < 0 {
			return fmt.Errorf("the model has no %s %q: bundle.json does not fit the model", kind, w.Name)
		}
		h := have[i]
		if h.DataType != ortgo.TensorElementDataTypeFloat {
			return fmt.Errorf("%s %q of the model is %v, not float32", kind, w.Name, h.DataType)
		}
		fits := slices.EqualFunc(w.Shape, h.Dimensions, func(a, b int64) bool { return a == b || b < 0 })
		if !fits {
			return fmt.Errorf("%s %q of the model has shape %v, bundle.json says %v", kind, w.Name, h.Dimensions, w.Shape)
		}
	}
	if kind == "input" && len(want) != len(have) {
		return fmt.Errorf("the model has %d inputs, bundle.json says %d", len(have), len(want))
	}
	return nil
}

// engine implements infer.Engine.
type engine struct {
	session         *ortgo.DynamicAdvancedSession
	inputs, outputs []infer.Tensor
}

// Close implements infer.Engine.
func (e *engine) Close() error { return e.session.Destroy() }

// NewIO implements infer.Engine.
func (e *engine) NewIO() (infer.IO, error) {
	b, err := e.session.CreateIoBinding()
	if err != nil {
		return nil, fmt.Errorf("cannot bind tensors: %w", err)
	}
	io := &bound{session: e.session, binding: b}
	for _, t := range e.inputs {
		if err = io.add(&io.in, t, b.BindInput); err != nil {
			return nil, errors.Join(err, io.Close())
		}
	}
	for _, t := range e.outputs {
		if err = io.add(&io.out, t, b.BindOutput); err != nil {
			return nil, errors.Join(err, io.Close())
		}
	}
	return io, nil
}

// bound implements infer.IO.
type bound struct {
	session *ortgo.DynamicAdvancedSession
	binding *ortgo.IoBinding
	in, out []buffer
}

// buffer is the memory of one tensor.
type buffer struct {
	mem    []byte // mapped, page aligned, outside the Go heap
	values []float32
	tensor *ortgo.Tensor[float32]
}

func (b *bound) add(list *[]buffer, t infer.Tensor, bind func(string, ortgo.Value) error) error {
	n := t.Elements()
	mem, err := unix.Mmap(-1, 0, 4*n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("cannot map %d bytes for tensor %v: %w", 4*n, t, err)
	}
	*list = append(*list, buffer{mem: mem})
	buf := &(*list)[len(*list)-1]
	if err := unix.Madvise(mem, unix.MADV_DONTDUMP); err != nil {
		return fmt.Errorf("cannot keep tensor %v out of core dumps: %w", t, err)
	}
	buf.values = unsafe.Slice((*float32)(unsafe.Pointer(&mem[0])), n)
	if buf.tensor, err = ortgo.NewTensor(ortgo.NewShape(t.Shape...), buf.values); err != nil {
		return fmt.Errorf("cannot make tensor %v: %w", t, err)
	}
	if err := bind(t.Name, buf.tensor); err != nil {
		return fmt.Errorf("cannot bind tensor %v: %w", t, err)
	}
	return nil
}

// Input implements infer.IO.
func (b *bound) Input(i int) []float32 { return b.in[i].values }

// Output implements infer.IO.
func (b *bound) Output(i int) []float32 { return b.out[i].values }

// Run implements infer.IO.
func (b *bound) Run(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.session.RunWithBinding(b.binding); err != nil {
		return fmt.Errorf("the model failed while running: %w", err)
	}
	return nil
}

// Close implements infer.IO.
func (b *bound) Close() error {
	err := b.binding.Destroy()
	for _, buf := range slices.Concat(b.in, b.out) {
		if buf.tensor != nil {
			err = errors.Join(err, buf.tensor.Destroy())
		}
		clear(buf.mem)
		err = errors.Join(err, unix.Munmap(buf.mem))
	}
	b.in, b.out = nil, nil
	return err
}
