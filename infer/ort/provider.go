package ort

/*
#include <stdlib.h>
#include "ops.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	ortgo "github.com/yalue/onnxruntime_go"
	"golang.org/x/sys/unix"

	"vigil/infer"
)

// Execution providers that have options of their own here. Any other name is that of a provider library registered by path.
const (
	CPU      = "cpu"
	CUDA     = "cuda"
	TensorRT = "tensorrt"
)

// builtIn are the names that the library itself uses for them.
var builtIn = map[string]string{CPU: "CPUExecutionProvider", CUDA: "CUDAExecutionProvider", TensorRT: "TensorrtExecutionProvider"}

// ErrNoProvider means that the execution provider cannot be used here: the library was built without it, a library that it
// needs is missing, or there is no device.
var ErrNoProvider = errors.New("cannot be used")

// Provider says what executes the nodes of models. The zero value is the CPU.
type Provider struct {
	Name    string // "" is CPU
	Library string // path of a provider library (ONNX Runtime 1.22 and later), for names that are not built in
	// Fallback lets nodes that the provider cannot run run on the CPU. Without it a model that has any is refused, and the
	// refusal names one: a path through two memories is slower than either.
	Fallback bool
	// Options go to the provider as they are, after those made of the fields below; a key of the same name wins.
	Options map[string]string

	DeviceID         int
	MemoryLimitBytes int64 // of its arena on the device; 0 is no limit. The arena grows by what is asked, never by doubling.
	Graphs           bool  // capture CUDA graphs: tensors are bound once, so addresses hold

	// TensorRT only.
	WorkspaceBytes int64  // scratch memory while an engine is built; 0 is the provider's
	EngineCache    string // folder of built engines; it must lie in memory (tmpfs), for engines hold the weights in clear
	TimingCache    string // folder of measured kernels: no weights in it
	FP16           bool   // let float layers run in half precision
	DLACore        int    // above 0: run on the deep learning accelerator of that number less 1
	BuilderLevel   int    // 0 to 5; 0 is the provider's
}

func (p *Provider) name() string {
	if p.Name == "" {
		return CPU
	}
	return p.Name
}

// plugin reports whether a library brings the provider.
func (p *Provider) plugin() bool { return builtIn[p.name()] == "" }

// Check refuses what means nothing, before anything is loaded.
func (p *Provider) Check() error {
	switch {
	case p.plugin() && p.Library == "":
		return fmt.Errorf("provider %q: built in are %s, %s and %s; any other needs the path of its library", p.name(), CPU, CUDA, TensorRT)
	case !p.plugin() && p.Library != "":
		return fmt.Errorf("provider %q is built in: it takes no library", p.name())
	case p.DeviceID < 0 || p.MemoryLimitBytes < 0 || p.WorkspaceBytes < 0 || p.DLACore < 0:
		return fmt.Errorf("provider %q: device, limits and cores are 0 or more", p.name())
	case p.BuilderLevel < 0 || p.BuilderLevel > 5:
		return fmt.Errorf("provider %q: builder level %d: 0 to 5", p.name(), p.BuilderLevel)
	}
	return p.checkEngineCache()
}

func (p *Provider) checkEngineCache() error {
	if p.EngineCache == "" {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(p.EngineCache, &fs); err != nil {
		return fmt.Errorf("engine cache %s: %w", p.EngineCache, err)
	}
	if fs.Type != unix.TMPFS_MAGIC && fs.Type != unix.RAMFS_MAGIC {
		return fmt.Errorf("engine cache %s lies on a disk, and engines hold the weights in clear: name a folder of a tmpfs, such as below /run", p.EngineCache)
	}
	return nil
}

// cudaOptions are those of ONNX Runtime's CUDA provider, by its documented names.
func (p *Provider) cudaOptions() map[string]string {
	o := map[string]string{
		"device_id":             fmt.Sprint(p.DeviceID),
		"arena_extend_strategy": "kSameAsRequested", // doubling would keep memory that no model asked for
		"enable_cuda_graph":     flag(p.Graphs),
	}
	if p.MemoryLimitBytes > 0 {
		o["gpu_mem_limit"] = fmt.Sprint(p.MemoryLimitBytes)
	}
	maps.Copy(o, p.Options)
	return o
}

// tensorRTOptions are those of ONNX Runtime's TensorRT provider. INT8 comes from the explicit quantisation of the model, so
// there is no calibration table; shapes are the bundle's, the least, best and largest alike.
func (p *Provider) tensorRTOptions(inputs []infer.Tensor) map[string]string {
	o := map[string]string{
		"device_id":             fmt.Sprint(p.DeviceID),
		"trt_int8_enable":       "1",
		"trt_fp16_enable":       flag(p.FP16),
		"trt_cuda_graph_enable": flag(p.Graphs),
		"trt_dla_enable":        flag(p.DLACore > 0),
	}
	set := func(key string, use bool, value any) {
		if use {
			o[key] = fmt.Sprint(value)
		}
	}
	set("trt_dla_core", p.DLACore > 0, p.DLACore-1)
	set("trt_max_workspace_size", p.WorkspaceBytes > 0, p.WorkspaceBytes)
	set("trt_builder_optimization_level", p.BuilderLevel > 0, p.BuilderLevel)
	set("trt_engine_cache_enable", p.EngineCache != "", 1)
	set("trt_engine_cache_path", p.EngineCache != "", p.EngineCache)
	set("trt_timing_cache_enable", p.TimingCache != "", 1)
	set("trt_timing_cache_path", p.TimingCache != "", p.TimingCache)
	for _, key := range []string{"trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes"} {
		set(key, len(inputs) > 0, profile(inputs))
	}
	maps.Copy(o, p.Options)
	return o
}

// profile writes shapes as the provider reads them: name:1x3x112x112,other:1x10.
func profile(inputs []infer.Tensor) string {
	var list []string
	for _, t := range inputs {
		list = append(list, t.Name+":"+strings.ReplaceAll(strings.Trim(fmt.Sprint(t.Shape), "[]"), " ", "x"))
	}
	return strings.Join(list, ",")
}

func flag(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

// addTo puts the provider into the options of a session for a model with these inputs.
func (p *Provider) addTo(opts *ortgo.SessionOptions, inputs []infer.Tensor) (err error) {
	switch {
	case p.name() == CPU:
		return nil
	case p.plugin():
		err = p.addDevices(opts)
	case p.name() == CUDA:
		err = p.addCUDA(opts)
	default:
		err = p.addTensorRT(opts, inputs)
	}
	if err == nil && !p.Fallback {
		err = opts.AddSessionConfigEntry("session.disable_cpu_ep_fallback", "1")
	}
	mendSignals()
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNoProvider, p.name(), err)
	}
	return nil
}

func (p *Provider) addCUDA(opts *ortgo.SessionOptions) error {
	o, err := ortgo.NewCUDAProviderOptions()
	if err != nil {
		return err
	}
	err = o.Update(p.cudaOptions())
	if err == nil {
		err = opts.AppendExecutionProviderCUDA(o)
	}
	return errors.Join(err, o.Destroy())
}

func (p *Provider) addTensorRT(opts *ortgo.SessionOptions, inputs []infer.Tensor) error {
	o, err := ortgo.NewTensorRTProviderOptions()
	if err != nil {
		return err
	}
	err = o.Update(p.tensorRTOptions(inputs))
	if err == nil {
		err = opts.AppendExecutionProviderTensorRT(o)
	}
	return errors.Join(err, o.Destroy())
}

// addDevices takes the devices that the provider's library offers.
func (p *Provider) addDevices(opts *ortgo.SessionOptions) error {
	handle, err := handleOf(opts)
	if err != nil {
		return err
	}
	keys := slices.Sorted(maps.Keys(p.Options))
	table := (**C.char)(C.calloc(C.size_t(2*len(keys)+1), C.size_t(unsafe.Sizeof(uintptr(0)))))
	defer C.free(unsafe.Pointer(table))
	text := unsafe.Slice(table, 2*len(keys)+1)
	for i, k := range keys {
		text[i], text[len(keys)+i] = C.CString(k), C.CString(p.Options[k])
	}
	name := C.CString(p.name())
	defer func() {
		for _, s := range append(slices.Clone(text), name) {
			C.free(unsafe.Pointer(s))
		}
	}()
	var devices C.size_t
	err = failure(C.vigil_append_devices(env.ops.c.plugins, handle, name, &text[0], &text[len(keys)], C.size_t(len(keys)), &devices))
	if err == nil && devices == 0 {
		return fmt.Errorf("the library %s offers no device under the name %q", p.Library, p.name())
	}
	return err
}

// beside checks that the libraries of a built-in provider lie beside ONNX Runtime's, where it looks for them: what it says
// where they do not is hard to read.
func (p *Provider) beside(library string) error {
	if p.name() == CPU {
		return nil
	}
	for _, name := range []string{"libonnxruntime_providers_" + p.name() + ".so", "libonnxruntime_providers_shared.so"} {
		if _, err := os.Stat(filepath.Join(filepath.Dir(library), name)); err != nil {
			return fmt.Errorf("%w: this ONNX Runtime (%s) has no %s provider beside it (%s)", ErrNoProvider, library, map[string]string{CUDA: "CUDA", TensorRT: "TensorRT"}[p.name()], name)
		}
	}
	return nil
}

// register loads the library of a provider into the process, once.
func (p *Provider) register() error {
	if !p.plugin() {
		return nil
	}
	switch known, ok := env.libraries[p.name()]; {
	case ok && known != p.Library:
		return fmt.Errorf("provider %q is already registered from %s", p.name(), known)
	case ok:
		return nil
	case env.ops.c.plugins == nil:
		return fmt.Errorf("%w: %s: provider libraries need ONNX Runtime 1.22 or later, this is %s", ErrNoProvider, p.name(), ortgo.GetVersion())
	}
	err := ortgo.RegisterExecutionProviderLibrary(p.name(), p.Library)
	mendSignals()
	if err != nil {
		return fmt.Errorf("%w: %s: cannot register %s: %w", ErrNoProvider, p.name(), p.Library, err)
	}
	if env.libraries == nil {
		env.libraries = map[string]string{}
	}
	env.libraries[p.name()] = p.Library
	return nil
}

// available names the providers that the open library was built with.
func available() ([]string, error) {
	var names *C.char
	if err := failure(C.vigil_providers(env.ops.c.api, &names)); err != nil {
		return nil, fmt.Errorf("cannot ask for providers: %w", err)
	}
	defer C.free(unsafe.Pointer(names))
	return strings.Fields(C.GoString(names)), nil
}

// mendSignals makes handlers that a library installed run on the alternative stack: CUDA is known to install such, and Go's
// runtime dies of the first signal that meets one.
func mendSignals() { env.mended.Add(int64(C.vigil_mend_signals())) }

// MendedSignals says how many handlers were without so far, for the log and doctor.
func MendedSignals() int { return int(env.mended.Load()) }

// pin locks memory for a provider's copies, if it has a CUDA runtime; without one copies take a detour, and work.
func pin(mem []byte) bool {
	return C.vigil_pin(unsafe.Pointer(&mem[0]), C.size_t(len(mem))) == 0
}

func unpin(mem []byte) error {
	if code := C.vigil_unpin(unsafe.Pointer(&mem[0])); code != 0 {
		return fmt.Errorf("cannot unpin memory: CUDA error %d", int(code))
	}
	return nil
}
