package core

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"vigil/daemon/config"
	"vigil/daemon/vault"
	"vigil/infer"
	"vigil/infer/builtin"
	"vigil/infer/chain"
	"vigil/infer/cuda"
	"vigil/infer/ort"
	"vigil/infer/trt"
	"vigil/infer/vnni"
	"vigil/kernels/int8"
)

// RuntimeLinks are the runtimes of this program in the order of their speed. engines gives TensorRT the engine of a model;
// it may be nil where the links are only asked.
func RuntimeLinks(cfg config.Config, engines trt.Engines) []chain.Link {
	links := []chain.Link{{
		Name:  chain.TensorRT,
		Probe: func() chain.Answer { return trt.Probe(cfg.Runtime.TensorRT) },
		Open: func(context.Context) (infer.Runtime, error) {
			rt, err := trt.Open(trt.Options{Library: cfg.Runtime.TensorRT, Alloc: locked, Engines: engines})
			if err != nil {
				return nil, err // not a nil *trt.Runtime as an infer.Runtime
			}
			return rt, nil
		},
	}}
	if p := cfg.Runtime.Provider; p.Library != "" {
		links = append(links, ortLink(cfg, chain.ORTPlugin, ort.Provider{Name: p.Name, Library: p.Library, Options: p.Options}))
	}
	return append(links, ortLink(cfg, chain.ORTTensorRT, ort.Provider{Name: ort.TensorRT}), ortLink(cfg, chain.ORTCUDA, ort.Provider{Name: ort.CUDA}),
		ortLink(cfg, chain.ORTCPU, ort.Provider{}))
}

// ortLink is ONNX Runtime with one of its execution providers. A provider is asked by opening it: that loads its libraries.
func ortLink(cfg config.Config, name string, p ort.Provider) chain.Link {
	d := cfg.Runtime.Device
	p.Fallback, p.DeviceID, p.MemoryLimitBytes, p.Graphs = d.CPUForTheRest, d.ID, int64(d.MemoryMiB)<<20, d.Graphs
	p.WorkspaceBytes, p.EngineCache, p.TimingCache = int64(d.WorkspaceMiB)<<20, d.EngineCache, d.TimingCache
	p.FP16, p.DLACore, p.BuilderLevel = d.FP16, d.DLACore, d.BuilderLevel
	open := func(threads int) (*ort.Runtime, error) {
		return ort.Open(ort.Options{Library: cfg.Runtime.Library, Threads: threads, Affinity: cfg.Runtime.Affinity, Provider: p})
	}
	return chain.Link{
		Name: name,
		Probe: func() chain.Answer {
			rt, err := open(1)
			if name != chain.ORTCPU && errors.Is(err, ort.ErrNoLibrary) {
				return chain.Answer{State: chain.No, Reason: "there is no ONNX Runtime, which it is a part of"}
			}
			if err != nil {
				return chain.Answer{State: chain.No, Reason: err.Error()}
			}
			a := chain.Answer{State: chain.Yes, Reason: rt.Name()}
			if err := rt.Close(); err != nil {
				a = chain.Answer{State: chain.DontKnow, Reason: err.Error()}
			}
			return a
		},
		Open: func(context.Context) (infer.Runtime, error) {
			rt, err := open(cfg.Runtime.Threads)
			if err != nil {
				return nil, err
			}
			if name == chain.ORTCPU && cfg.Runtime.Kernels == config.KernelsAuto {
				return vnni.Over(rt), nil
			}
			return rt, nil
		},
	}
}

// KernelsText says whether our kernels run 8-bit models on this processor.
func KernelsText(cfg config.Config) string {
	if err := int8.Have(); err != nil {
		return "8-bit models run on it too: " + err.Error()
	}
	if cfg.Runtime.Kernels == config.KernelsOff {
		return `8-bit models run on it too: runtime.kernels is "off"`
	}
	return "VNNI kernels for 8-bit models where they are faster"
}

// AskRuntimes says of every runtime whether it could be used here, with the device that the driver shows.
func AskRuntimes(cfg config.Config) ([]chain.Verdict, cuda.Device) {
	return chain.Ask(RuntimeLinks(cfg, nil)), cuda.Probe()
}

// noLibrary is the error of a chain of which ONNX Runtime is missing, without the words on runtimes that few devices have.
func (a *Appliance) noLibrary(err error) error {
	if _, found := ort.Find(a.cfg.Runtime.Library); errors.Is(found, ort.ErrNoLibrary) {
		return found
	}
	return err
}

// spareRuntime runs the bundles that the first runtime of the chain does not take.
type spareRuntime struct {
	infer.Runtime
}

// passesOn says whether a runtime's error means that another may do better.
func passesOn(err error) bool {
	return errors.Is(err, trt.ErrRefused) || errors.Is(err, ort.ErrRefused) || errors.Is(err, ErrNoEngine)
}

// onChain does work on the appliance's runtime, or, when that does not take a model, on the next of the chain, with the
// reason. It returns the runtime that was worked on last, which stays the appliance's, and the verdicts.
func (a *Appliance) onChain(ctx context.Context, work func(infer.Runtime) error) (infer.Runtime, []chain.Verdict, error) {
	reason := work(a.runtime)
	if !passesOn(reason) {
		return a.runtime, a.verdicts, reason
	}
	spare, verdicts, err := chain.Next(ctx, a.links, a.verdicts, reason)
	if err != nil {
		return a.runtime, a.verdicts, errors.Join(reason, err)
	}
	a.spareMu.Lock()
	if a.spare == nil {
		a.spare = &spareRuntime{spare}
	} else {
		err = spare.Close() // it is open already, for another bundle
	}
	rt := a.spare.Runtime
	a.spareMu.Unlock()
	if err == nil {
		err = work(rt)
	}
	return rt, verdicts, err
}

// engineSource is the way of TensorRT's runtime to an engine: the cache. Nothing is built here: a device that starts, or
// that is asked something, does not wait for minutes. Errors: ErrNoEngine.
func (a *Appliance) engineSource(_ context.Context, l trt.Library, onnx []byte, inputs []infer.Tensor) (trt.Source, error) {
	cache, err := a.openEngines()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(onnx)
	digest := hex.EncodeToString(sum[:])
	e, err := cache.Open(engineKey(digest, l, inputs, a.precisionOf(digest)))
	if errors.Is(err, vault.ErrNotFound) || errors.Is(err, vault.ErrBroken) {
		return nil, fmt.Errorf("%w for %v: `vigild models build` builds it; it is used after a restart (%w)", ErrNoEngine, l, err)
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// precisionOf is the precision that a bundle of this device says a file has; "float32" for one that none names.
func (a *Appliance) precisionOf(digest string) string {
	var manifests []*infer.Manifest
	if m, err := builtin.Finger(); err == nil {
		manifests = append(manifests, m.Manifest)
	}
	ids, err := a.vault.IDs()
	if err != nil {
		return "float32"
	}
	for _, id := range ids {
		if m, err := a.vault.Load(id); err == nil {
			manifests = append(manifests, m.Manifest)
		}
	}
	for _, m := range manifests {
		for i := range m.Stages {
			for _, v := range m.Stages[i].Variants {
				if m.Files[v.File].SHA256 == digest {
					return v.Precision
				}
			}
		}
	}
	return "float32"
}
