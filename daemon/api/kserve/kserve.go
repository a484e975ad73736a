// Package kserve runs single models for clients that speak a subset of KServe's protocol, version 2 (the "Open Inference
// Protocol" over HTTP, with the binary tensor extension), so that existing load tools can drive a device.
//
// Promises: a model is loaded at its first use, a second time beside the one that decides, and runs in at most Parallel
// requests at a time; Waiting more wait, further ones are refused with ErrBusy. Shapes and types must be exactly those of the
// model. A model whose bundle is no longer in use is unloaded when it is next asked for. Parsing costs memory in proportion
// to the body only.
//
// The Server owns the engines it loaded; Close frees them, and must come before the runtime is closed. It does no HTTP and
// knows no clients: who may use it is its caller's to decide.
package kserve

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"vigil/infer"
)

// Bounds of one model.
const (
	Parallel = 2  // sets of tensors, and so requests that run at a time
	Waiting  = 16 // requests that may wait for one of them
)

// Errors of the Server, beside those of the Source and of the runtime.
var (
	// ErrRequest: the request does not fit the model, or is no request at all.
	ErrRequest = errors.New("the inference request cannot be used")
	// ErrBusy: too many requests wait for the model.
	ErrBusy = errors.New("the model is busy: try again in a second")
)

// Stage is one model that can be asked for.
type Stage struct {
	Name            string // BUNDLE.STAGE
	Inputs, Outputs []infer.Tensor
	Runtime         string
}

// Source is where models come from.
type Source interface {
	// Stage finds a model in use by its name.
	Stage(name string) (Stage, error)
	// Load loads it; the engine is the caller's.
	Load(ctx context.Context, name string) (infer.Engine, error)
}

// Server runs models.
type Server struct {
	src Source

	mu     sync.Mutex
	closed bool
	loaded map[string]*model
	ending sync.WaitGroup // of models that are being unloaded
}

// model is one loaded model. Whoever uses it holds mu for reading.
type model struct {
	stage   Stage
	mu      sync.RWMutex
	load    sync.Mutex
	engine  infer.Engine
	all     []infer.IO
	free    chan infer.IO
	waiting atomic.Int32
}

// New makes a server without models.
func New(src Source) *Server { return &Server{src: src, loaded: map[string]*model{}} }

// Metadata describes a model. Errors: those of the source.
func (s *Server) Metadata(name string) (ModelMetadata, error) {
	st, err := s.find(name)
	if err != nil {
		return ModelMetadata{}, err
	}
	return ModelMetadata{
		Name: st.Name, Versions: []string{"1"}, Platform: st.Runtime, Inputs: describe(st.Inputs), Outputs: describe(st.Outputs),
	}, nil
}

func describe(list []infer.Tensor) []TensorMetadata {
	out := make([]TensorMetadata, len(list))
	for i, t := range list {
		out[i] = TensorMetadata{Name: t.Name, Datatype: fp32, Shape: t.Shape}
	}
	return out
}

// find looks a model up, and unloads it if it is no longer to be had.
func (s *Server) find(name string) (Stage, error) {
	st, err := s.src.Stage(name)
	if err == nil {
		return st, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.loaded[name]; m != nil {
		delete(s.loaded, name)
		s.ending.Go(func() { _ = m.close() }) // what fails to close is gone with the process
	}
	return st, err
}

// acquire returns a set of tensors of a model, loading it if it must. The caller calls release. Errors: ErrBusy, the context's.
func (s *Server) acquire(ctx context.Context, st Stage) (_ infer.IO, release func(), err error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, nil, fmt.Errorf("%w: it is being closed", ErrBusy)
	}
	m := s.loaded[st.Name]
	if m == nil {
		m = &model{stage: st, free: make(chan infer.IO, Parallel)}
		s.loaded[st.Name] = m
	}
	m.mu.RLock() // under s.mu, so that it cannot have been closed
	s.mu.Unlock()
	defer func() {
		if err != nil {
			m.mu.RUnlock()
		}
	}()
	if m.waiting.Add(1) > Parallel+Waiting {
		m.waiting.Add(-1)
		return nil, nil, ErrBusy
	}
	defer func() {
		if err != nil {
			m.waiting.Add(-1)
		}
	}()
	if err := m.open(ctx, s.src); err != nil {
		return nil, nil, err
	}
	select {
	case io := <-m.free:
		return io, func() { m.free <- io; m.waiting.Add(-1); m.mu.RUnlock() }, nil
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

// open loads the model once; after a failure the next request tries again.
func (m *model) open(ctx context.Context, src Source) (err error) {
	m.load.Lock()
	defer m.load.Unlock()
	if m.engine != nil {
		return nil
	}
	engine, err := src.Load(ctx, m.stage.Name)
	if err != nil {
		return err
	}
	var all []infer.IO
	for range Parallel {
		io, err := engine.NewIO()
		if err != nil {
			return errors.Join(err, closeAll(all), engine.Close())
		}
		all = append(all, io)
	}
	m.engine, m.all = engine, all
	for _, io := range all {
		m.free <- io
	}
	return nil
}

func closeAll(list []infer.IO) error {
	var errs []error
	for _, io := range list {
		errs = append(errs, io.Close())
	}
	return errors.Join(errs...)
}

// close waits for those who use the model and frees it.
func (m *model) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.engine == nil {
		return nil
	}
	err := errors.Join(closeAll(m.all), m.engine.Close())
	m.engine, m.all = nil, nil
	return err
}

// Close frees all models; requests that run are waited for. It may be called twice.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	list := s.loaded
	s.loaded = nil
	s.mu.Unlock()
	var errs []error
	for _, m := range list {
		errs = append(errs, m.close())
	}
	s.ending.Wait()
	return errors.Join(errs...)
}

// Infer runs a model on a request body; headerLength is the length of the JSON in it, -1 when all of it is JSON. The answer
// is body, of which the first jsonLength bytes are JSON and the rest binary; without binary jsonLength is -1. Errors:
// ErrRequest, ErrBusy, those of the source and the runtime, the context's.
func (s *Server) Infer(ctx context.Context, name string, data []byte, headerLength int) (body []byte, jsonLength int, err error) {
	st, err := s.find(name)
	if err != nil {
		return nil, 0, err
	}
	q, err := Parse(data, headerLength)
	if err != nil {
		return nil, 0, err
	}
	if err := q.check(&st); err != nil {
		return nil, 0, err
	}
	io, release, err := s.acquire(ctx, st)
	if err != nil {
		return nil, 0, err
	}
	defer release()
	for i := range st.Inputs {
		if err := q.fill(io.Input(i), &st.Inputs[i]); err != nil {
			return nil, 0, err
		}
	}
	if err := io.Run(ctx); err != nil {
		return nil, 0, err
	}
	return q.answer(&st, io)
}
