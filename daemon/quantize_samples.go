package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"vigil/infer/face"
)

// stageSamples are pictures as tensors of the stage.
type stageSamples struct {
	q       *quantizer
	paths   []string
	ready   [][]float32 // of the embedder: aligning takes a detection each
	without int         // pictures without a face
}

// Len implements quant.Samples.
func (s *stageSamples) Len() int { return len(s.paths) }

// Fill implements quant.Samples.
func (s *stageSamples) Fill(ctx context.Context, i int, input []float32) error {
	if s.ready != nil {
		copy(input, s.ready[i])
		return nil
	}
	f, err := s.q.decode(ctx, s.paths[i])
	if err != nil {
		return fmt.Errorf("%s: %w", s.paths[i], err)
	}
	defer f.Release()
	if s.q.prints != nil {
		return s.q.prints.ExtractInput(input, f, 0)
	}
	return s.q.pipe.DetectInput(input, f)
}

// mostHeld bounds the pictures that are held out to measure agreement.
const mostHeld = 64

// pictures lists those to calibrate on, evenly spread over the folder, and others between them to measure on.
func (q *quantizer) pictures(ctx context.Context) (taken, held *stageSamples, err error) {
	var all []string
	err = filepath.WalkDir(q.o.calib, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ext := strings.ToLower(filepath.Ext(path)); d.Type().IsRegular() && (ext == ".jpg" || ext == ".jpeg" || ext == ".png") {
			all = append(all, path)
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read --calib: %w", err)
	}
	if len(all) < 2 {
		return nil, nil, fmt.Errorf("--calib %s holds %d pictures (.jpg, .jpeg, .png): 2 are needed at least, 100 or more are good", q.o.calib, len(all))
	}
	n := min(q.o.samples, len(all)-1)
	taken, held = &stageSamples{q: q}, &stageSamples{q: q}
	next := 0
	for i, path := range all {
		if next < n && i == next*len(all)/n {
			taken.paths = append(taken.paths, path)
			next++
		} else {
			held.paths = append(held.paths, path)
		}
	}
	if k := len(held.paths); k > mostHeld {
		for i := range mostHeld {
			held.paths[i] = held.paths[i*k/mostHeld]
		}
		held.paths = held.paths[:mostHeld]
	}
	if q.stage.Name == face.StageEmbed {
		err = errors.Join(taken.align(ctx, "calibration"), held.align(ctx, "held-out"))
	}
	return taken, held, err
}

// align prepares the crops of all pictures and drops those without a face.
func (s *stageSamples) align(ctx context.Context, what string) error {
	p := newProgress(s.q.stderr, "aligning "+what+" pictures")
	var paths []string
	s.ready = [][]float32{}
	for i, path := range s.paths {
		f, err := s.q.decode(ctx, path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		crop := make([]float32, s.q.stage.Inputs[0].Elements())
		err = s.q.pipe.EmbedInput(ctx, crop, f)
		f.Release()
		switch {
		case errors.Is(err, face.ErrNoFace):
			s.without++
		case err != nil:
			return fmt.Errorf("%s: %w", path, err)
		default:
			paths, s.ready = append(paths, path), append(s.ready, crop)
		}
		p.update(i+1, len(s.paths))
	}
	if s.paths = paths; len(paths) == 0 {
		return fmt.Errorf("no %s picture shows a face: --calib needs pictures of people", what)
	}
	return nil
}
