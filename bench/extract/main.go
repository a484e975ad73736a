// Command extract times the first network of the fingerprint bundle in the binary, in float and as deployed, one thread,
// batch 1 and 8, both precisions in turns, and prints milliseconds a picture as JSON, for train/fingerprint/compare.py to
// put beside PyTorch.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"vigil/infer"
	"vigil/infer/builtin"
	"vigil/infer/finger"
	"vigil/infer/ort"
	"vigil/infer/quant"
	"vigil/infer/quant/onnx"
)

// row is the time of one precision at one batch size.
type row struct {
	Engine string  `json:"engine"`
	Batch  int64   `json:"batch"`
	MS     float64 `json:"ms_per_picture"` // median
}

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "extract:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	rt, err := ort.Open(ort.Options{Threads: 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rt.Close()) }()
	m, err := builtin.Finger()
	if err != nil {
		return err
	}
	s := m.Manifest.Stage(finger.StageExtract)
	var rows []row
	for _, batch := range []int64{1, 8} {
		race, err := raceAt(ctx, rt, m, s, batch)
		if err != nil {
			return err
		}
		for i, name := range []string{"ONNX Runtime fp32", "ONNX Runtime as deployed (" + s.Choose(rt.Dialects()).Precision + ")"} {
			rows = append(rows, row{name, batch, race.Seconds[i] * 1e3 / float64(batch)})
		}
	}
	return json.NewEncoder(os.Stdout).Encode(rows)
}

// raceAt times the stage's own file against the one that the runtime chooses.
func raceAt(ctx context.Context, rt *ort.Runtime, m *infer.Model, s *infer.Stage, batch int64) (race *quant.Race, err error) {
	var engines [2]infer.Engine
	defer func() {
		for _, e := range engines {
			if e != nil {
				err = errors.Join(err, e.Close())
			}
		}
	}()
	many := func(list []infer.Tensor) (out []infer.Tensor) {
		for _, t := range list {
			t.Shape = append([]int64{batch}, t.Shape[1:]...)
			out = append(out, t)
		}
		return out
	}
	for i, file := range []string{s.File, s.Choose(rt.Dialects()).File} {
		data, err := rebatch(m, file, batch)
		if err != nil {
			return nil, err
		}
		if engines[i], err = rt.Load(ctx, data, many(s.Inputs), many(s.Outputs)); err != nil {
			return nil, err
		}
	}
	r := rand.New(rand.NewPCG(1, 1))
	return quant.RaceEngines(ctx, engines, func(in []float32) {
		for i := range in {
			in[i] = float32(r.NormFloat64())
		}
	}, 24/int(batch))
}

// rebatch makes a file of the bundle for several pictures at once.
func rebatch(m *infer.Model, file string, batch int64) ([]byte, error) {
	w, err := m.Open(file)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	graph, err := onnx.Read(w.Bytes())
	if err != nil {
		return nil, err
	}
	if err := graph.SetBatch(batch); err != nil {
		return nil, err
	}
	return graph.Write()
}
