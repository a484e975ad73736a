package core

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"vigil/daemon/vault"
	"vigil/infer"
	"vigil/infer/trt"
	"vigil/secure/mem"
)

// Errors of building engines.
var (
	// ErrNoBuilder: this program, or this machine, cannot build engines for the runtime.
	ErrNoBuilder = errors.New("engines cannot be built here")
	// ErrBuild: an engine was not built: refused, out of time, out of memory, or its child ended.
	ErrBuild = errors.New("the engine was not built")
	// ErrBuilding: somebody else builds engines on this device; two builds would want twice the memory.
	ErrBuilding = errors.New("engines are being built already: try again when that is done")
	// ErrNoEngine: the runtime needs an engine of the model, and the cache has none.
	ErrNoEngine = errors.New("no engine is built")
)

// EngineBuilder builds engines outside this process.
type EngineBuilder interface {
	// Library says what would build; where is as for trt.Inspect, whose errors it gives.
	Library(ctx context.Context, where string) (trt.Library, error)
	// Build builds an engine of a model, into memory of alloc, which the caller closes. It tells step of progress.
	Build(ctx context.Context, o trt.Order, model []byte, alloc trt.Alloc, step func(trt.Step)) (trt.Memory, trt.Built, error)
}

const (
	enginesName = "engines" // folder in the state folder
	// engineCacheBytes bounds the cached engines of a device: those of a dozen models, for two versions of the library.
	engineCacheBytes = 1 << 30
	// RuntimeTensorRT is the name of the runtime that engines are built for.
	RuntimeTensorRT = "tensorrt"
)

// locked allocates what plaintext of engines passes through.
func locked(bytes int) (trt.Memory, error) { return mem.New(bytes) }

// openEngines opens the cache of engines, when first needed.
func (a *Appliance) openEngines() (*vault.Engines, error) {
	return vault.OpenEngines(filepath.Join(a.cfg.StateDir, enginesName), a.device.Keyring(), engineCacheBytes, a.now)
}

// profile writes the shapes of the inputs for the key of an engine: "data[1 3 112 112]".
func profile(inputs []infer.Tensor) string {
	parts := make([]string, len(inputs))
	for i, t := range inputs {
		parts[i] = fmt.Sprint(t.Name, t.Shape)
	}
	return strings.Join(parts, ",")
}

// engineKey is what an engine of a file is kept under.
func engineKey(sha256 string, l trt.Library, inputs []infer.Tensor, precision string) vault.EngineKey {
	return vault.EngineKey{
		Model: sha256, Library: l.String(), CUDA: l.CUDA, Driver: l.Driver, Compute: l.Compute, Profile: profile(inputs), Precision: precision,
	}
}

// BuildProgress is one step on the way.
type BuildProgress struct {
	Stage string `json:"stage"`
	File  string `json:"file"`
	// State is "found" (in the cache), "broken" (the cached one was removed and is built again), "building", "built" or
	// "failed".
	State  string    `json:"state"`
	Detail string    `json:"detail,omitempty"` // in words
	Step   *trt.Step `json:"step,omitempty"`   // of the library, when building
}

// States of a BuildProgress.
const (
	BuildFound    = "found"
	BuildBroken   = "broken"
	BuildBuilding = "building"
	BuildBuilt    = "built"
	BuildFailed   = "failed"
)

// BuildReport is what BuildEngines did.
type BuildReport struct {
	Model   string        `json:"model"`
	Library trt.Library   `json:"library"`
	Name    string        `json:"library_name"`
	Good    bool          `json:"good"` // every stage has its engine
	Engines []BuiltEngine `json:"engines"`
	// CacheBytes and CacheEntries are what all engines of the device take on the disk, sealed.
	CacheBytes   int64 `json:"cache_bytes"`
	CacheEntries int   `json:"cache_entries"`
}

// BuiltEngine is the engine of one stage.
type BuiltEngine struct {
	infer.Choice
	State    string   `json:"state"` // BuildFound, BuildBuilt or BuildFailed
	Bytes    int64    `json:"bytes,omitempty"`
	Seconds  float64  `json:"seconds,omitempty"` // to build
	Layers   int      `json:"layers,omitempty"`
	Quantize int      `json:"quantize_layers,omitempty"`
	Peak     int64    `json:"peak_bytes,omitempty"` // of the child's memory
	Notes    []string `json:"notes,omitempty"`
	Problem  string   `json:"problem,omitempty"`
}

// BuildEngines builds an engine for every stage of a bundle: of its INT8 file in TensorRT's dialect where the bundle has
// one, else of its float file, with the reason. What is in the cache is not built again. progress is called from this
// goroutine and from the child's reader, never twice at once; it may be nil. Stages that fail stand in the report. Errors:
// vault.ErrNotFound, ErrBuilding, ErrNoBuilder, those of the cache, the
// context's.
func (a *Appliance) BuildEngines(ctx context.Context, id string, progress func(BuildProgress)) (BuildReport, error) {
	r := BuildReport{Model: id, Engines: []BuiltEngine{}, Good: true}
	m, _, err := a.loadBundle(id)
	if err != nil {
		return r, err
	}
	if !a.building.TryLock() {
		return r, fmt.Errorf("cannot build for bundle %s: %w", id, ErrBuilding)
	}
	defer a.building.Unlock()
	if a.builder == nil {
		return r, fmt.Errorf("%w: TensorRT is %w", ErrNoBuilder, trt.ErrUnsupported)
	}
	if r.Library, err = a.builder.Library(ctx, a.cfg.Runtime.TensorRT); err != nil {
		return r, fmt.Errorf("%w: %w", ErrNoBuilder, err)
	}
	if r.Library.Parser == "" {
		return r, fmt.Errorf("%w: %v (%s) has no ONNX parser beside it: install it (on a Jetson, libnvonnxparsers10)", ErrNoBuilder, r.Library, r.Library.Path)
	}
	r.Name = r.Library.String()
	if progress == nil {
		progress = func(BuildProgress) {}
	}
	b := building{app: a, model: m, library: r.Library, tell: progress}
	if b.cache, err = a.openEngines(); err != nil {
		return r, err
	}
	for i := range m.Manifest.Stages {
		if m.Manifest.Stages[i].File == "" {
			continue
		}
		e, err := b.stage(ctx, &m.Manifest.Stages[i])
		if ctx.Err() != nil {
			return r, context.Cause(ctx)
		}
		if err != nil {
			e.State, e.Problem, r.Good = BuildFailed, err.Error(), false
			progress(BuildProgress{Stage: e.Stage, File: e.File, State: BuildFailed, Detail: err.Error()})
		}
		r.Engines = append(r.Engines, e)
	}
	r.CacheBytes, r.CacheEntries, err = b.cache.Bytes()
	if err != nil {
		return r, err
	}
	return r, a.audit(ctx, "model.build", "", map[string]any{"model": id, "library": r.Name, "good": r.Good}, false)
}

// building is one run of BuildEngines.
type building struct {
	app     *Appliance
	model   *infer.Model
	library trt.Library
	cache   *vault.Engines
	tell    func(BuildProgress)
}

// stage finds or builds the engine of a stage.
func (b *building) stage(ctx context.Context, s *infer.Stage) (BuiltEngine, error) {
	c := s.Choose([]string{infer.DialectTensorRT})
	e := BuiltEngine{Choice: c}
	key := engineKey(b.model.Manifest.Files[c.File].SHA256, b.library, s.Inputs, c.Precision)
	say := func(state, detail string, step *trt.Step) {
		b.tell(BuildProgress{Stage: c.Stage, File: c.File, State: state, Detail: detail, Step: step})
	}
	found, err := b.cache.Open(key)
	switch {
	case err == nil:
		e.State, e.Bytes = BuildFound, found.Size()
		say(BuildFound, "found in the cache", nil)
		return e, found.Close()
	case errors.Is(err, vault.ErrBroken):
		b.app.log.Warn("a cached engine does not open: it is removed and built again", "model", b.model.Manifest.ID, "stage", c.Stage, "err", err)
		e.Notes = append(e.Notes, err.Error()+": it was removed and built again")
		say(BuildBroken, err.Error()+": it is removed and built again", nil)
	case !errors.Is(err, vault.ErrNotFound):
		return e, err
	}
	say(BuildBuilding, c.Precision+": "+c.Reason, nil)
	w, err := b.model.Open(c.File)
	if err != nil {
		return e, err
	}
	engine, built, err := b.app.builder.Build(ctx, trt.Order{Library: b.app.cfg.Runtime.TensorRT, Inputs: s.Inputs}, w.Bytes(), locked, func(step trt.Step) { say(BuildBuilding, "", &step) })
	if err = errors.Join(err, w.Close()); err != nil {
		return e, err
	}
	e.State, e.Bytes, e.Seconds, e.Layers, e.Quantize, e.Peak = BuildBuilt, built.Bytes, built.Seconds, built.Layers, built.Quantize, built.Peak
	e.Notes = append(e.Notes, built.Notes...)
	// The child may have met another library than the one that was asked: what it says counts.
	key = engineKey(b.model.Manifest.Files[c.File].SHA256, built.Library, s.Inputs, c.Precision)
	if err = errors.Join(b.cache.Put(key, engine.Bytes()[:built.Bytes]), engine.Close()); err == nil {
		say(BuildBuilt, "", nil)
	}
	return e, err
}

// forgetEngines removes the engines of a bundle that is removed. Files that another bundle shares lose them too: they are
// built again.
func (a *Appliance) forgetEngines(m *infer.Manifest) error {
	var sums []string
	for _, f := range m.Files {
		sums = append(sums, f.SHA256)
	}
	slices.Sort(sums)
	cache, err := a.openEngines()
	if err != nil {
		return err
	}
	return cache.Forget(sums)
}
