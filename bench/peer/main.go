// Command peer quantises the public embedder with ours and with Microsoft's onnxruntime.quantization on the same
// calibration pictures, and prints one table: accuracy on the aligned LFW pairs, how near the embeddings stay to fp32, and
// latency on one thread. `make bench-quant` runs it, after scripts/venv made the Python environment. Every file that we
// write, for every public model and both dialects, goes through ONNX's own checker and strict shape inference first.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"vigil/bench/open"
	"vigil/infer"
	"vigil/infer/eval"
	"vigil/infer/ort"
	"vigil/infer/quant"
)

const python = ".cache/bench/venv/bin/python"

type options struct {
	out           string
	samples, runs int
	method        string
	skipCheck     bool
}

func main() {
	var o options
	flag.StringVar(&o.out, "out", ".cache/bench/quant", "folder for the files made")
	flag.IntVar(&o.samples, "samples", 128, "calibration pictures")
	flag.IntVar(&o.runs, "runs", 100, "timed runs")
	flag.StringVar(&o.method, "method", string(quant.MSE), "our method")
	flag.BoolVar(&o.skipCheck, "skip-check", false, "only the table, no checker over the other models")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	rt, err := ort.Open(ort.Options{Threads: 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rt.Close()) }()
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	var files []string
	for _, m := range open.Models() {
		n := 4 // enough for a file to check
		if m.File == open.Embedder {
			n = o.samples
		} else if o.skipCheck {
			continue
		}
		made, err := ours(ctx, rt, m, n, o)
		if err != nil {
			return fmt.Errorf("%s: %w", m.File, err)
		}
		files = append(files, made...)
	}
	if err := command(ctx, append([]string{"bench/peer.py", "check"}, files...)...); err != nil {
		return fmt.Errorf("ONNX's checker refuses a file: %w", err)
	}
	i := slices.IndexFunc(open.Models(), func(m open.Model) bool { return m.File == open.Embedder })
	m := open.Models()[i]
	if err := peers(ctx, m, o); err != nil {
		return err
	}
	return compare(ctx, rt, m, o)
}

func command(ctx context.Context, args ...string) error {
	c := exec.CommandContext(ctx, python, args...)
	c.Stdout, c.Stderr = os.Stderr, os.Stderr
	return c.Run()
}

// ours writes both dialects of a model.
func ours(ctx context.Context, rt *ort.Runtime, m open.Model, n int, o options) (files []string, err error) {
	data, err := m.Read()
	if err != nil {
		return nil, err
	}
	s, err := m.Take(n, 0)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "ours: %s on %d pictures\n", m.File, n)
	c, err := quant.Calibrate(ctx, rt, data, []infer.Tensor{m.Input}, s, quant.Options{Method: quant.Method(o.method)})
	if err != nil {
		return nil, err
	}
	for _, dialect := range []string{infer.DialectCPU, infer.DialectTensorRT} {
		q, err := c.Write(ctx, dialect)
		if err != nil {
			return nil, err
		}
		path := filepath.Join(o.out, fmt.Sprintf("ours %s %s", dialect, m.File))
		if err := os.WriteFile(path, q.Data, 0o644); err != nil {
			return nil, err
		}
		files = append(files, path)
	}
	return files, nil
}

// peers hands the calibration pictures, as the tensors that ours saw, to the peer.
func peers(ctx context.Context, m open.Model, o options) error {
	s, err := m.Take(o.samples, 0)
	if err != nil {
		return err
	}
	var raw bytes.Buffer
	input := make([]float32, m.Input.Elements())
	for i := range s.Len() {
		if err := s.Fill(ctx, i, input); err != nil {
			return err
		}
		if err := binary.Write(&raw, binary.LittleEndian, input); err != nil {
			return err
		}
	}
	calib := filepath.Join(o.out, "calib.raw")
	if err := os.WriteFile(calib, raw.Bytes(), 0o644); err != nil {
		return err
	}
	model := filepath.Join(open.Data(), "models", m.File)
	return command(ctx, "bench/peer.py", "quantize", model, m.Input.Name, calib, fmt.Sprint(o.samples), o.out)
}

// compare prints the table.
func compare(ctx context.Context, rt *ort.Runtime, m open.Model, o options) error {
	fp32, err := m.Read()
	if err != nil {
		return err
	}
	pairs, err := open.AlignedPairs()
	if err != nil {
		return err
	}
	reference, err := m.Embed(ctx, rt, fp32, pairs, nil)
	if err != nil {
		return err
	}
	paths, err := filepath.Glob(filepath.Join(o.out, "*.onnx"))
	if err != nil {
		return err
	}
	fmt.Printf("%d aligned pairs, %d calibration pictures, %s, one thread\n", len(pairs), o.samples, rt.Name())
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MODEL\tACCURACY %\tMEAN COSINE\tWORST\tSCORE RMS\tFP32/THIS")
	fmt.Fprintf(w, "fp32\t%.2f\t\t\t\t\n", 100*reference.Accuracy(pairs))
	for _, path := range paths {
		label := strings.TrimSuffix(filepath.Base(path), ".onnx")
		mine := strings.HasPrefix(label, "ours ") && strings.HasSuffix(label, strings.TrimSuffix(m.File, ".onnx"))
		if !mine && !strings.HasPrefix(label, "peer ") {
			continue
		}
		if err := row(ctx, rt, m, o, w, label, path, fp32, pairs, reference); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return w.Flush()
}

func row(ctx context.Context, rt *ort.Runtime, m open.Model, o options, w *tabwriter.Writer, label, path string, fp32 []byte, pairs []eval.Pair, reference open.Embeddings) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	got, err := m.Embed(ctx, rt, data, pairs, nil)
	if err != nil {
		return err
	}
	mean, worst, rms := reference.Difference(got, pairs)
	race, err := m.Race(ctx, rt, [2][]byte{fp32, data}, o.runs)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%s\t%.2f\t%.4f\t%.4f\t%.4f\t%.2f (%.2f..%.2f)\n", label, 100*got.Accuracy(pairs), mean, worst, rms, race.Ratio, race.Low, race.High)
	return nil
}
