// Package ort runs models on ONNX Runtime.
//
// Promises: models are loaded from memory; tensors live outside the Go heap at fixed, 64-byte aligned addresses, are left
// out of core dumps, are bound once and wiped on Close. Run blocks its goroutine in C and allocates nothing in Go. The
// library is opened once per process: a second Open while one is in use shares it, and must name the same file.
// ONNX Runtime's own threads never spin when idle. Operators of ours (infer.OpsDomain) are compiled in, in C, and known to
// the sessions of models that have them; what they answer is bit for bit what the Go code answers that they stand for.
//
// A run ends early when its context does: between two nodes. On a provider with memory of its own (Provider) an input
// crosses once before a run and an output once after it; the bound tensors are pinned for that where CUDA's runtime is there.
// Signal handlers that a provider's library installs are made safe for Go as soon as it is loaded.
//
// It owns the environment, the sessions and the tensors. It does not choose a provider: it is told one, and says why it
// cannot be used.
package ort

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	ortgo "github.com/yalue/onnxruntime_go"

	"vigil/infer"
)

// Options configures a runtime.
type Options struct {
	Library string // path of libonnxruntime.so; "" searches, see Find
	Threads int    // threads per engine; 0 means 1
	// Affinity binds the threads of an engine to processors, as ONNX Runtime's session.intra_op_thread_affinities takes it:
	// one list a thread but the first, which is the caller's: "1;2" for three threads. "" leaves them to the kernel.
	Affinity string
	Provider Provider // what executes the nodes; the CPU if not said
	// NoOperators leaves operators of ours out: models that have them are refused, and stages run their plain files.
	NoOperators bool
}

// ErrNoLibrary means that no ONNX Runtime was found.
var ErrNoLibrary = errors.New("ONNX Runtime library not found")

// ErrRefused means that an execution provider other than the CPU's does not take a model; another runtime may.
var ErrRefused = errors.New("the execution provider does not take the model")

// env is the one ONNX Runtime environment of the process, a property of the C library itself.
var env struct {
	sync.Mutex
	users     int
	path      string
	ops       operators
	libraries map[string]string // of providers, by the name they are registered under
	mended    atomic.Int64      // signal handlers that were not safe for Go
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
	affinity  string
	provider  Provider
	version   string
	operators bool // ours are registered
	once      sync.Once
}

// Open loads the library. Errors: ErrNoLibrary, ErrNoProvider, options that mean nothing.
func Open(o Options) (*Runtime, error) {
	if err := o.Provider.Check(); err != nil {
		return nil, err
	}
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
	r := &Runtime{threads: max(1, o.Threads), affinity: o.Affinity, provider: o.Provider, version: ortgo.GetVersion(), operators: !o.NoOperators}
	if err := r.usable(); err != nil {
		return nil, errors.Join(err, leave())
	}
	return r, nil
}

// usable says why the provider is not. The caller holds the environment.
func (r *Runtime) usable() error {
	p := &r.provider
	if p.plugin() {
		if err := p.register(); err != nil {
			return err
		}
	} else if have, err := available(); err != nil {
		return err
	} else if !slices.Contains(have, builtIn[p.name()]) {
		return fmt.Errorf("%w: this ONNX Runtime (%s) was built without %s (it has %s)", ErrNoProvider, env.path, p.name(), strings.Join(have, ", "))
	} else if err := p.beside(env.path); err != nil {
		return err
	}
	opts, err := r.sessionOptions(nil) // this loads what the provider needs
	if err != nil {
		return err
	}
	return opts.Destroy()
}

// leave gives up the environment; the last user closes it. The caller holds it.
func leave() error {
	if env.users--; env.users > 0 {
		return nil
	}
	env.ops.close()
	var err error
	for name := range env.libraries {
		err = errors.Join(err, ortgo.UnregisterExecutionProviderLibrary(name))
	}
	env.libraries = nil
	return errors.Join(err, ortgo.DestroyEnvironment())
}

// Name implements infer.Runtime.
func (r *Runtime) Name() string {
	name := map[string]string{CPU: "CPU", CUDA: "CUDA", TensorRT: "TensorRT"}[r.provider.name()]
	if name == "" {
		name = r.provider.name()
	}
	return "onnxruntime " + r.version + " " + name
}

// Dialects implements infer.Runtime: on the CPU Dialects, without infer.DialectOps where operators of ours are not
// registered; TensorRT's on TensorRT; none on others, whose float kernels are their best.
func (r *Runtime) Dialects() []string {
	switch r.provider.name() {
	case CPU:
	case TensorRT:
		return []string{infer.DialectTensorRT}
	default:
		return nil
	}
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
		err = leave()
	})
	return err
}

// Load implements infer.Runtime.
func (r *Runtime) Load(ctx context.Context, onnx []byte, inputs, outputs []infer.Tensor) (infer.Engine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	opts, info, err := r.prepare(onnx, inputs)
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
	if err != nil && r.provider.name() != CPU {
		return nil, fmt.Errorf("%w: %s: %w", ErrRefused, r.provider.name(), err)
	}
	if err != nil {
		return nil, fmt.Errorf("ONNX Runtime refuses the model: %w", err)
	}
	return &engine{session: session, inputs: inputs, outputs: outputs, device: r.provider.name() != CPU}, nil
}

// Inspect implements infer.Inspector.
func (r *Runtime) Inspect(onnx []byte) (inputs, outputs []infer.Tensor, err error) {
	opts, info, err := r.prepare(onnx, nil)
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

// sessionOptions are those of a session for a model with these inputs.
func (r *Runtime) sessionOptions(inputs []infer.Tensor) (*ortgo.SessionOptions, error) {
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
	if r.affinity != "" {
		err = errors.Join(err, o.AddSessionConfigEntry("session.intra_op_thread_affinities", r.affinity))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot set session options: %w", err), o.Destroy())
	}
	if err := r.provider.addTo(o, inputs); err != nil {
		return nil, errors.Join(err, o.Destroy())
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
