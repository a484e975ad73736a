// Command models measures fp32 against INT8 on ONNX Runtime's CPU provider, one thread, for every public model, at batch 1
// and 8, and prints the gate's verdict beside it. `make bench-models` runs it, `make bench-models-no-vnni` runs it on an
// emulated processor without VNNI.
//
// Both precisions run in turns in one process; a ratio is the median of the ratios of neighbouring runs, with quartiles.
package main

import (
	"bytes"
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
	"vigil/infer/vnni"
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
	fmt.Fprintln(w, "MODEL\tBATCH\tWHAT\tms\tms\tRATIO\tQUARTILES\tCOSINE\tGATE")
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
	over, agreement := vnni.Over(rt), 0.0 // rt is closed by its owner
	for _, c := range []struct {
		n    int64
		what string
		on   [2]infer.Runtime
		of   [2][]byte
	}{
		{1, "ONNX Runtime: float, INT8", [2]infer.Runtime{rt, rt}, [2][]byte{fp32, int8}},
		{1, "vigild: float, INT8", [2]infer.Runtime{rt, over}, [2][]byte{fp32, int8}},
		{1, "INT8: ONNX Runtime, vigild", [2]infer.Runtime{rt, over}, [2][]byte{int8, int8}},
		{8, "ONNX Runtime: float, INT8", [2]infer.Runtime{rt, rt}, [2][]byte{fp32, int8}},
	} {
		if c.n > int64(o.most) || c.on[1] == over && over == infer.Runtime(rt) { // this processor does not run our kernels
			continue
		}
		o := o
		if !bytes.Equal(c.of[0], fp32) {
			o.keep = "" // what is kept are the answers in float
		}
		race, a, err := raceAt(ctx, c.on, m, c.n, c.of, held, o, (o.runs+int(c.n)-1)/int(c.n))
		if err != nil {
			return fmt.Errorf("batch %d: %w", c.n, err)
		}
		if c.n == 1 {
			agreement = a
		}
		verdict, err := judged(ctx, c.on[1], m, c.of, quant.Evidence{Metric: "mean cosine", FP32: 1, Variant: agreement, Latency: race}, fp32)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%.2f\t%.2f\t%.2f\t%.2f..%.2f\t%.4f\t%s\n", m.File, c.n, c.what, race.Seconds[0]*1e3, race.Seconds[1]*1e3, race.Ratio, race.Low, race.High, agreement, verdict)
	}
	return nil
}

// judged is the gate's verdict on float against 8 bits; between two that run 8 bits, which kernels were taken and why.
func judged(ctx context.Context, rt infer.Runtime, m open.Model, of [2][]byte, e quant.Evidence, fp32 []byte) (_ string, err error) {
	if bytes.Equal(of[0], fp32) {
		g, _ := quant.Judge(e, quant.Limits{MostLoss: 0.01}, false)
		return g.Verdict + ": " + g.Reason, nil
	}
	engine, err := rt.Load(ctx, of[1], []infer.Tensor{m.Input}, m.Outputs)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	if x, ok := engine.(infer.Explained); ok {
		return x.Kernels(), nil
	}
	return "", nil
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
func raceAt(ctx context.Context, on [2]infer.Runtime, m open.Model, n int64, models [2][]byte, held open.Samples, o options, runs int) (race *quant.Race, cosine float64, err error) {
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
		if engines[i], err = on[i].Load(ctx, data, []infer.Tensor{in}, outs); err != nil {
			return nil, 0, err
		}
	}
	if n == 1 {
		first, err := reference(ctx, engines[0], m, held, o)
		if err != nil {
			return nil, 0, err
		}
		a, err := quant.Agree(ctx, [2]infer.Engine{first, engines[1]}, len(outs), held)
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
