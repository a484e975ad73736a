// Command models measures fp32 against INT8 on ONNX Runtime's CPU provider, one thread, for every public model, at batch 1
// and 8, and prints the gate's verdict beside it. `make bench-models` runs it, `make bench-models-no-vnni` runs it on an
// emulated processor without VNNI.
//
// Both precisions run in turns in one process; a ratio is the median of the ratios of neighbouring runs, with quartiles.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"

	"vigil/bench/open"
	"vigil/infer"
	"vigil/infer/ort"
	"vigil/infer/quant"
	"vigil/infer/quant/onnx"
)

type options struct {
	runs, samples, held int
	only                string
	bits                int
	keep                string
	most                int
	labelled            bool
}

func main() {
	var o options
	flag.IntVar(&o.runs, "runs", 100, "timed runs of each precision")
	flag.IntVar(&o.samples, "samples", 64, "pictures to calibrate on")
	flag.IntVar(&o.held, "held", 32, "other pictures to measure agreement on")
	flag.StringVar(&o.only, "only", "", "one model file instead of all")
	flag.IntVar(&o.bits, "weight-bits", 0, "7 or 8; 0 is what the gate of this processor wants")
	flag.StringVar(&o.keep, "keep", "", "folder of INT8 files: one that is there is taken, another is made and put there")
	flag.IntVar(&o.most, "batch", 8, "largest batch: 8, or 1 for that alone")
	flag.BoolVar(&o.labelled, "labelled", false, "judge the embedder by its accuracy on the aligned LFW pairs instead of by its agreement on a few pictures")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "models:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	rt, err := ort.Open(ort.Options{Threads: 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rt.Close()) }()
	fmt.Printf("%s, one thread, processor with VNNI or the like: %v\n", rt.Name(), quant.HasDotProduct())
	if o.labelled {
		return labelled(ctx, rt, o)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MODEL\tBATCH\tFP32 ms\tINT8 ms\tRATIO\tQUARTILES\tCOSINE\tGATE")
	for _, m := range open.Models() {
		if o.only != "" && o.only != m.File {
			continue
		}
		if err := measure(ctx, rt, m, o, w); err != nil {
			return fmt.Errorf("%s: %w", m.File, err)
		}
	}
	return w.Flush()
}

// measure prints the rows of one model.
func measure(ctx context.Context, rt *ort.Runtime, m open.Model, o options, w *tabwriter.Writer) error {
	fp32, err := m.Read()
	if err != nil {
		return err
	}
	held, err := m.Take(o.held, 7)
	if err != nil {
		return err
	}
	int8, err := quantised(ctx, rt, m, fp32, o)
	if err != nil {
		return err
	}
	agreement := 0.0
	for _, n := range []int64{1, 8} {
		if n > int64(o.most) {
			break
		}
		race, a, err := raceAt(ctx, rt, m, n, [2][]byte{fp32, int8}, held, o, (o.runs+int(n)-1)/int(n))
		if err != nil {
			return fmt.Errorf("batch %d: %w", n, err)
		}
		if n == 1 {
			agreement = a
		}
		g, _ := quant.Judge(quant.Evidence{Metric: "mean cosine to fp32", FP32: 1, Variant: agreement, Latency: race}, quant.Limits{MostLoss: 0.01}, false)
		fmt.Fprintf(w, "%s\t%d\t%.2f\t%.2f\t%.2f\t%.2f..%.2f\t%.4f\t%s: %s\n", m.File, n, race.Seconds[0]*1e3, race.Seconds[1]*1e3, race.Ratio, race.Low, race.High, agreement, g.Verdict, g.Reason)
	}
	return nil
}

// quantised makes the INT8 file, or takes the one that is kept: under an emulator calibration would take hours.
func quantised(ctx context.Context, rt *ort.Runtime, m open.Model, fp32 []byte, o options) ([]byte, error) {
	if o.bits == 0 {
		o.bits = 7
		if quant.HasDotProduct() {
			o.bits = 8
		}
	}
	path := filepath.Join(o.keep, fmt.Sprintf("%d bits, %d pictures, %s", o.bits, o.samples, m.File))
	if o.keep != "" {
		data, err := os.ReadFile(path)
		if err == nil || !errors.Is(err, os.ErrNotExist) {
			return data, err
		}
	}
	taken, err := m.Take(o.samples, 0)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "%s: calibrating on %d pictures\n", m.File, o.samples)
	c, err := quant.Calibrate(ctx, rt, fp32, []infer.Tensor{m.Input}, taken, quant.Options{WeightBits: o.bits})
	if err != nil {
		return nil, err
	}
	q, err := c.Write(ctx, infer.DialectCPU)
	if err != nil {
		return nil, err
	}
	if o.keep != "" {
		err = errors.Join(os.MkdirAll(o.keep, 0o755), os.WriteFile(path, q.Data, 0o644))
	}
	return q.Data, err
}

// raceAt times both at a batch size; at batch 1 it measures how alike they answer, too.
func raceAt(ctx context.Context, rt *ort.Runtime, m open.Model, n int64, models [2][]byte, held open.Samples, o options, runs int) (race *quant.Race, cosine float64, err error) {
	var engines [2]infer.Engine
	defer func() {
		for _, e := range engines {
			if e != nil {
				err = errors.Join(err, e.Close())
			}
		}
	}()
	in := batched(m.Input, n)
	var outs []infer.Tensor
	for _, t := range m.Outputs {
		outs = append(outs, batched(t, n))
	}
	for i, data := range models {
		if data, err = rebatch(data, m.Input, n); err != nil {
			return nil, 0, err
		}
		if engines[i], err = rt.Load(ctx, data, []infer.Tensor{in}, outs); err != nil {
			return nil, 0, err
		}
	}
	if n == 1 {
		fp32, err := reference(ctx, engines[0], m, held, o)
		if err != nil {
			return nil, 0, err
		}
		a, err := quant.Agree(ctx, [2]infer.Engine{fp32, engines[1]}, len(outs), held)
		if err != nil {
			return nil, 0, err
		}
		cosine = a.Cosine
	}
	var failed error
	fill := func(input []float32) {
		size := m.Input.Elements()
		for k := range int(n) {
			failed = errors.Join(failed, held.Fill(ctx, k%held.Len(), input[k*size:][:size]))
		}
	}
	race, err = quant.RaceEngines(ctx, engines, fill, runs)
	return race, cosine, errors.Join(err, failed)
}

func batched(t infer.Tensor, n int64) infer.Tensor {
	t.Shape = append([]int64{n}, t.Shape[1:]...)
	return t
}

// rebatch makes a model for n pictures at once.
func rebatch(data []byte, input infer.Tensor, n int64) ([]byte, error) {
	if n == 1 {
		return data, nil
	}
	m, err := onnx.Read(data)
	if err != nil {
		return nil, err
	}
	if err := m.Pin(input.Name, input.Shape); err != nil {
		return nil, err
	}
	if err := m.SetBatch(n); err != nil {
		return nil, err
	}
	return m.Write()
}
