package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"vigil/infer"
	"vigil/infer/face"
	"vigil/infer/ort"
	"vigil/infer/preset"
	"vigil/kernels"
	"vigil/sensors"
	"vigil/sensors/picture"
)

// work is what a request asks for.
type work struct {
	name  string
	do    func(ctx context.Context, worker int) error
	close func() error
}

func newWork(ctx context.Context, o options) (*work, error) {
	switch {
	case o.work == "arithmetic":
		return busyFor("arithmetic of 15 to 25 ms", compute), nil
	case o.work == "sleep":
		return busyFor("sleep of 15 to 25 ms", time.Sleep), nil
	case o.work != "" && o.work != "faces":
		return nil, fmt.Errorf("-work %q: faces, arithmetic or sleep", o.work)
	}
	if _, err := os.Stat(filepath.Join(o.data, "models")); err != nil && o.work == "" {
		fmt.Fprintf(os.Stderr, "no models in %q: the work is arithmetic\n", o.data)
		return busyFor("arithmetic of 15 to 25 ms", compute), nil
	}
	return faces(ctx, o)
}

// busyFor is work that takes its time.
func busyFor(name string, spend func(time.Duration)) *work {
	var seed atomic.Uint64
	return &work{name: name, close: func() error { return nil }, do: func(context.Context, int) error {
		r := rand.New(rand.NewPCG(seed.Add(1), 2))
		spend(15*time.Millisecond + time.Duration(r.Int64N(int64(10*time.Millisecond))))
		return nil
	}}
}

var sink atomic.Uint64 // what compute found, so that it is not left out

// compute keeps a core busy.
func compute(d time.Duration) {
	x := uint64(1)
	for until := time.Now().Add(d); time.Now().Before(until); {
		for range 1000 {
			x = x*6364136223846793005 + 1442695040888963407
		}
	}
	sink.Store(x)
}

const (
	pictures  = 64
	templates = 10000
)

// faces identifies faces: every worker has a pipeline of its own over shared engines.
func faces(ctx context.Context, o options) (_ *work, err error) {
	rt, err := ort.Open(ort.Options{Threads: 1})
	if err != nil {
		return nil, err
	}
	w := &work{name: "faces of LFW identified among 10,000"}
	var pipes []*face.Pipeline
	w.close = func() error {
		var errs []error
		for _, p := range pipes {
			errs = append(errs, p.Close())
		}
		return errors.Join(append(errs, rt.Close())...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	manifest, err := preset.Load("face")
	if err != nil {
		return nil, err
	}
	m, err := infer.FromDir(os.DirFS(filepath.Join(o.data, "models")), manifest)
	if err != nil {
		return nil, err
	}
	first, err := face.New(ctx, rt, m)
	if err != nil {
		return nil, err
	}
	pipes = append(pipes, first)
	for len(pipes) < o.workers {
		p, err := first.Share()
		if err != nil {
			return nil, err
		}
		pipes = append(pipes, p)
	}
	frames, err := decoded(ctx, filepath.Join(o.data, "faces", "lfw"))
	if err != nil {
		return nil, err
	}
	w.do = identify(pipes, frames)
	return w, nil
}

// decoded are the first pictures of the folder, in the order of their names.
func decoded(ctx context.Context, dir string) (list []*sensors.Frame, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.jpg"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no pictures in %s: %w", dir, errors.Join(err, os.ErrNotExist))
	}
	slices.Sort(files)
	pool := sensors.NewPool(pictures)
	for _, name := range files[:min(pictures, len(files))] {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		f, err := picture.Decode(ctx, pool, data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, f)
	}
	return list, nil
}

// identify is the work on one of the frames in turn.
func identify(pipes []*face.Pipeline, frames []*sensors.Frame) func(context.Context, int) error {
	dim := pipes[0].Dimension()
	rows := make([]int8, templates*dim)
	r := rand.New(rand.NewPCG(3, 4))
	for i := range rows {
		rows[i] = int8(r.IntN(255) - 127)
	}
	results, dots := make([]*face.Result, len(pipes)), make([][]int32, len(pipes))
	for i, p := range pipes {
		results[i], dots[i] = p.NewResult(), make([]int32, templates)
	}
	var turn atomic.Uint64
	return func(ctx context.Context, worker int) error {
		f := frames[int(turn.Add(1))%len(frames)]
		res := results[worker]
		if err := pipes[worker].Process(ctx, f, res); err != nil {
			return err
		}
		for i := range res.Faces {
			kernels.DotRows(dots[worker], rows, dim, res.Faces[i].Values)
		}
		return nil
	}
}
