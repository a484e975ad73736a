// Package trt runs models on NVIDIA TensorRT itself, and builds the engines that it runs.
//
// Promises: nothing of NVIDIA's is linked. The library is opened when it is asked for, says its version before anything
// else is called, and is then driven by the object of its generation of headers (see Generations); a library of any other
// version is refused by name. Without the tag tensorrt the package holds the same names and every way in answers
// ErrUnsupported. A serialised engine is read from a Source and passes through memory that the caller's Alloc gave, never
// through a file. Run blocks its goroutine in C: the inputs cross to the device once, the outputs come back once, and the
// host waits for the stream once; Counts says so. Engines of a runtime share its stream and its scratch memory on the
// device, so their runs are one after the other.
//
// It owns the library, the stream, device and pinned memory. Building belongs into a process of its own, for it takes
// gigabytes, minutes, and now and then its process with it: RunChild is that process's work, Exchange talks to it from the
// other side. Who starts it, and what an engine is kept under, is not this package's.
package trt

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"vigil/infer"
)

// Errors of this package.
var (
	// ErrUnsupported: this build has no TensorRT (tag tensorrt), or lacks the object for the library's generation.
	ErrUnsupported = errors.New("not part of this build (tag tensorrt)")
	// ErrNoLibrary: no TensorRT was found, or no part of it that is needed.
	ErrNoLibrary = errors.New("TensorRT library not found")
	// ErrVersion: the library is of a version that this program does not know how to drive.
	ErrVersion = errors.New("unknown version of TensorRT")
	// ErrNoDriver: the library is there, a driver or a device is not.
	ErrNoDriver = errors.New("no NVIDIA driver or device")
	// ErrRefused: TensorRT does not take the model or the engine.
	ErrRefused = errors.New("TensorRT refuses")
)

// Generation is a range of versions whose virtual tables the headers of one version describe.
type Generation struct {
	Name        string // "10", "11" or "rtx"
	Oldest      int    // as getInferLibVersion says it, inclusive
	Newest      int    // exclusive
	Description string
}

// Generations are those that scripts/trt compiles. Within a major version NVIDIA only appends to the tables, so newer
// headers drive an older library as far as we call what it has; that is 10.3 (JetPack 6) for 10.x. Upwards nothing is
// guessed: headers that were older than their library crashed (RTX 1.3 and 1.4 with RTX 1.7.1).
var Generations = []Generation{
	{"rtx", 1_05_00, 1_08_00, "TensorRT-RTX 1.5 to 1.7"},
	{"10", 10_03_00, 10_17_00, "TensorRT 10.3 to 10.16"},
	{"11", 11_00_00, 11_05_00, "TensorRT 11.0 to 11.4"},
}

// VersionText writes what getInferLibVersion answers for people: 101601 is "10.16.1". TensorRT up to 8 counted
// differently; its number is shown as it is.
func VersionText(version int) string {
	if version < 1_00_00 {
		return fmt.Sprintf("number %d", version)
	}
	return fmt.Sprintf("%d.%d.%d", version/10000, version/100%100, version%100)
}

// generationOf finds the generation of a version. Errors: ErrVersion, which names the library and what would do.
func generationOf(path string, version int) (Generation, error) {
	i := slices.IndexFunc(Generations, func(g Generation) bool { return version >= g.Oldest && version < g.Newest })
	if i >= 0 {
		return Generations[i], nil
	}
	known := ""
	for i, g := range Generations {
		if i > 0 {
			known += ", "
		}
		known += g.Description
	}
	return Generation{}, fmt.Errorf("%s is %w: %s; this program drives %s", path, ErrVersion, VersionText(version), known)
}

// Library is what is known of a TensorRT that is installed; no driver is needed to know it.
type Library struct {
	Path       string `json:"path"`
	Version    int    `json:"version"` // as getInferLibVersion says it: 10000 x major + 100 x minor + patch
	Generation string `json:"generation"`
	Headers    string `json:"headers"` // version of the headers that drive it
	Parser     string `json:"parser"`  // path of the ONNX parser; empty if there is none: engines run but cannot be built
	CUDA       int    `json:"cuda"`    // version of the CUDA runtime beside it, 1000 x major + 10 x minor; 0 if none was found
	Driver     int    `json:"driver"`  // newest CUDA version that the driver knows, likewise; 0 without a driver
	Compute    string `json:"compute"` // compute capability of device 0 such as "8.7"; empty without a device
}

// String names the library for people: "TensorRT 10.3.0", "TensorRT-RTX 1.7.1".
func (l Library) String() string {
	if l.Generation == "rtx" {
		return "TensorRT-RTX " + VersionText(l.Version)
	}
	return "TensorRT " + VersionText(l.Version)
}

// Source is a serialised engine at rest, decrypted piece by piece as it is read. Its reader closes it.
type Source interface {
	Size() int64
	ReadAt(p []byte, off int64) (int, error) // as io.ReaderAt
	Close() error
}

// Memory is memory outside the Go heap that its owner wipes on Close.
type Memory interface {
	Bytes() []byte
	Close() error
}

// Alloc gives memory for what must not reach a disk. Its caller closes the memory.
type Alloc func(bytes int) (Memory, error)

// Engines finds the serialised engine of a model with inputs of these shapes for a library.
type Engines func(ctx context.Context, l Library, onnx []byte, inputs []infer.Tensor) (Source, error)

// Counts are what a runtime did since it was opened. CopiesIn, CopiesOut and Syncs count what runs did, so that a run of an
// engine of one input and two outputs adds 1, 2 and 1.
type Counts struct {
	Runs, CopiesIn, CopiesOut, Syncs uint64
	GraphLaunches                    uint64 // runs that were one CUDA graph
	Captures                         uint64 // graphs made
}
