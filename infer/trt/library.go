//go:build tensorrt

package trt

// #cgo CFLAGS: -std=gnu11 -O2 -Wall -Wextra -Werror
// #cgo LDFLAGS: -ldl
// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"vigil/infer/chain"
	_ "vigil/infer/trt/gen" // the objects of the generations
)

// Supported says whether this build can drive TensorRT at all (tag tensorrt).
const Supported = true

// names of the libraries, in the order in which they are looked for: the engine's, and the parser's of the same kind. A
// lean runtime comes last, for it builds nothing.
var names = []struct{ engine, parser string }{
	{"libnvinfer.so.11", "libnvonnxparser.so.11"},
	{"libnvinfer.so.10", "libnvonnxparser.so.10"},
	{"libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"},
	{"libtensorrt_rtx.so", "libtensorrt_onnxparser_rtx.so"},
	{"libnvinfer_lean.so.11", ""},
	{"libnvinfer_lean.so.10", ""},
}

// cudaNames of the CUDA runtime, the newest first.
var cudaNames = []string{"libcudart.so.13", "libcudart.so.12"}

// installed is the open library with all that is known of it. Closing it closes what it opened.
type installed struct {
	Library
	api   *C.vt_api
	entry C.vt_entry
	cuda  *C.vt_cuda // in C's memory; nil without a CUDA runtime
	tell  C.vt_tell
	open  []unsafe.Pointer // in the order of opening
}

// folderOf splits where the user says the library is: a folder, a file, or "" for VIGIL_TRT_LIB, /usr/lib/vigil/tensorrt
// and the loader's own places, which folder "" stands for.
func folderOf(where string) (folder, file string, err error) {
	if where == "" {
		where = os.Getenv("VIGIL_TRT_LIB")
	}
	if where == "" {
		const ours = "/usr/lib/vigil/tensorrt"
		if _, err := os.Stat(ours); err == nil {
			return ours, "", nil
		}
		return "", "", nil
	}
	info, err := os.Stat(where)
	if err != nil {
		return "", "", fmt.Errorf("%w: %w: set runtime.tensorrt or VIGIL_TRT_LIB to the folder of libnvinfer.so or libtensorrt_rtx.so", ErrNoLibrary, err)
	}
	if info.IsDir() {
		return where, "", nil
	}
	return filepath.Dir(where), filepath.Base(where), nil
}

// dlopen opens a library of a folder, or of the loader's places. A file of ours that is missing is told apart from one that
// does not load.
func (l *installed) dlopen(folder, name string, global C.int) (unsafe.Pointer, error) {
	path := name
	if folder != "" {
		path = filepath.Join(folder, name)
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoLibrary, err)
		}
	}
	text := C.CString(path)
	defer C.free(unsafe.Pointer(text))
	var why *C.char
	h := C.vt_open(text, global, &why)
	if h == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoLibrary, C.GoString(why))
	}
	l.open = append(l.open, h)
	return h, nil
}

// openLibrary opens TensorRT, asks for its version before anything else, and finds what drives it. Errors: ErrNoLibrary,
// ErrVersion, ErrUnsupported when this build lacks the generation.
func openLibrary(where string) (l *installed, err error) {
	folder, file, err := folderOf(where)
	if err != nil {
		return nil, err
	}
	l = &installed{}
	defer func() {
		if err != nil {
			l.close()
			l = nil
		}
	}()
	l.openCUDA(folder) // first: TensorRT-RTX opens it by its name and finds the one that is open
	engine, parser, err := l.openEngine(folder, file)
	if err != nil {
		return l, err
	}
	if l.Version = int(C.vt_version(engine)); l.Version == 0 {
		return l, fmt.Errorf("%s is %w: it does not say which", l.Path, ErrVersion)
	}
	g, err := generationOf(l.Path, l.Version)
	if err != nil {
		return l, err
	}
	l.Generation = g.Name
	name := C.CString(g.Name)
	defer C.free(unsafe.Pointer(name))
	if l.api = C.vt_generation(name); l.api == nil {
		return l, fmt.Errorf("%s is %v: %w: it was compiled without the headers of %s (scripts/trt)", l.Path, l.Library, ErrUnsupported, g.Description)
	}
	l.Headers = C.GoString(l.api.headers)
	if missing := C.vt_entries(engine, l.openParser(folder, parser), &l.entry); missing != nil {
		return l, fmt.Errorf("%s is %v: %w: it has no %s", l.Path, l.Library, ErrNoLibrary, C.GoString(missing))
	}
	l.entry.version = C.int32_t(l.Version)
	return l, nil
}

func (l *installed) openEngine(folder, file string) (engine unsafe.Pointer, parser string, err error) {
	var tried []error
	for _, n := range names {
		if file != "" && !strings.HasPrefix(file, strings.SplitAfter(n.engine, ".so")[0]) {
			continue
		}
		name := n.engine
		if file != "" {
			name = file
		}
		h, err := l.dlopen(folder, name, 0)
		if err == nil {
			l.Path = filepath.Join(folder, name)
			return h, n.parser, nil
		}
		tried = append(tried, err)
	}
	if len(tried) == 0 {
		h, err := l.dlopen(folder, file, 0)
		l.Path = filepath.Join(folder, file)
		return h, "", err
	}
	if folder != "" && file == "" { // the folder has none of them: one line, not six
		found := slices.IndexFunc(tried, func(err error) bool { return !errors.Is(err, os.ErrNotExist) })
		if found < 0 {
			return nil, "", fmt.Errorf("%w in %s: it should hold libnvinfer.so.10 or .11, or libtensorrt_rtx.so.1", ErrNoLibrary, folder)
		}
		return nil, "", tried[found]
	}
	if folder == "" {
		return nil, "", fmt.Errorf("%w: install TensorRT (on a Jetson, libnvinfer10 and libnvonnxparsers10), or set runtime.tensorrt or VIGIL_TRT_LIB to its folder", ErrNoLibrary)
	}
	return nil, "", tried[0]
}

// openParser opens the ONNX parser, if there is one: without it engines run but are not built.
func (l *installed) openParser(folder, name string) unsafe.Pointer {
	if name == "" {
		return nil
	}
	h, err := l.dlopen(folder, name, 0)
	if err != nil {
		return nil
	}
	l.Parser = filepath.Join(folder, name)
	return h
}

// openCUDA opens the CUDA runtime, beside TensorRT or where the loader finds it, and asks it for the driver and the device.
func (l *installed) openCUDA(folder string) {
	folders := []string{""}
	if folder != "" {
		folders = []string{folder, ""}
	}
	for _, f := range folders {
		for _, name := range cudaNames {
			h, err := l.dlopen(f, name, 1)
			if err != nil {
				continue
			}
			l.cuda = (*C.vt_cuda)(C.calloc(1, C.sizeof_vt_cuda))
			if missing := C.vt_cuda_open(h, l.cuda); missing != nil {
				C.free(unsafe.Pointer(l.cuda))
				l.cuda = nil
				continue
			}
			C.vt_cuda_tell(l.cuda, &l.tell)
			l.CUDA, l.Driver = int(l.tell.runtime), int(l.tell.driver)
			if l.tell.devices > 0 {
				l.Compute = fmt.Sprintf("%d.%d", l.tell.major, l.tell.minor)
			}
			return
		}
	}
}

// device is why there is no device to run on; nil if there is one.
func (l *installed) device() error {
	switch {
	case l.cuda == nil:
		return fmt.Errorf("%w: the CUDA runtime (%s) is not installed", ErrNoDriver, strings.Join(cudaNames, " or "))
	case l.Driver == 0:
		return fmt.Errorf("%w: the CUDA runtime finds no NVIDIA driver: install one of CUDA %s or later", ErrNoDriver, cudaText(l.CUDA))
	case l.tell.error != 0:
		return fmt.Errorf("%w: the CUDA runtime says: %s", ErrNoDriver, C.GoString(C.vt_cuda_error(l.cuda, l.tell.error)))
	case l.tell.devices < 1:
		return fmt.Errorf("%w: the driver shows no device", ErrNoDriver)
	}
	return nil
}

// cudaText writes a version of CUDA: 12060 is "12.6".
func cudaText(version int) string { return fmt.Sprintf("%d.%d", version/1000, version%1000/10) }

// close closes everything, the last opened first. Where there is a driver the libraries stay in the process: it keeps
// threads and handlers of theirs, whose code must not go. Another open finds them again.
func (l *installed) close() {
	for _, h := range slices.Backward(l.open) {
		if l.Driver == 0 {
			C.vt_close(h)
		}
	}
	l.open = nil
	C.free(unsafe.Pointer(l.cuda))
	l.cuda = nil
}

// Inspect says which TensorRT is installed, without a driver; where is a folder or a file, "" searches. Errors:
// ErrNoLibrary, ErrVersion, ErrUnsupported.
func Inspect(where string) (Library, error) {
	l, err := openLibrary(where)
	if err != nil {
		return Library{}, err
	}
	defer l.close()
	return l.Library, nil
}

// Probe says whether TensorRT can be used here; where is as for Inspect. It opens the library and its runtime, and closes
// both.
func Probe(where string) chain.Answer {
	rt, err := Open(Options{Library: where})
	if err != nil {
		return chain.Answer{State: chain.No, Reason: err.Error()}
	}
	a := chain.Answer{State: chain.Yes, Reason: rt.Name()}
	if err := rt.Close(); err != nil {
		a = chain.Answer{State: chain.DontKnow, Reason: err.Error()}
	}
	return a
}
