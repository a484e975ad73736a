package quant_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"vigil/infer"
	"vigil/infer/infertest"
	"vigil/infer/ort"
	"vigil/infer/quant"
	"vigil/infer/quant/onnx"
	"vigil/kernels"
	"vigil/sensors"
	"vigil/sensors/picture"
)

// crops are aligned faces of the public set, normalised as the embedder wants them.
type crops []string

func (c crops) Len() int { return len(c) }
func (c crops) Fill(ctx context.Context, i int, input []float32) error {
	data, err := os.ReadFile(c[i])
	if err != nil {
		return err
	}
	f, err := picture.Decode(ctx, sensors.NewPool(1), data)
	if err != nil {
		return err
	}
	defer f.Release()
	n := kernels.Norm{Mean: [3]float32{123.675, 116.28, 103.53}, InvStd: [3]float32{1 / 58.395, 1 / 57.12, 1 / 57.375}}
	im := kernels.Image{Width: f.Width, Height: f.Height, Format: kernels.RGB24}
	im.Planes[0] = kernels.Plane{Data: f.Planes[0].Data, StrideBytes: f.Planes[0].StrideBytes}
	kernels.NewLetterbox(112, 112, 112, 112).Into(input, &im, &n)
	return nil
}

// faces are so many aligned crops, evenly spread, from one on.
func faces(t testing.TB, n, from int) crops {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(infertest.Data(t, "faces", "lfw_aligned112"), "*", "*.jpg"))
	if err != nil || len(files) < n+from {
		t.Fatalf("%d pictures: %v", len(files), err)
	}
	slices.Sort(files)
	var out crops
	for i := range n {
		out = append(out, files[from+i*(len(files)-from)/n])
	}
	return out
}

// mobileFaceNet is the public embedder.
var mobileFaceNet = openModels[4]

func TestEmbedder(t *testing.T) {
	rt := infertest.Runtime(t)
	data := mobileFaceNet.read(t)
	c, err := quant.Calibrate(t.Context(), rt, data, []infer.Tensor{mobileFaceNet.input}, faces(t, 24, 0), quant.Options{WeightBits: 8})
	if err != nil {
		t.Fatal(err)
	}
	for _, dialect := range []string{infer.DialectCPU, infer.DialectTensorRT} {
		q := written(t, c, dialect)
		if len(q.Data)*5/2 > len(data) {
			t.Errorf("%s: %d bytes, fp32 has %d", dialect, len(q.Data), len(data))
		}
		var engines [2]infer.Engine
		for i, d := range [][]byte{data, q.Data} {
			if engines[i], err = rt.Load(t.Context(), d, []infer.Tensor{mobileFaceNet.input}, []infer.Tensor{in("output0", 1, 128)}); err != nil {
				t.Fatal(err)
			}
			defer engines[i].Close()
		}
		a, err := quant.Agree(t.Context(), engines, 1, faces(t, 16, 5))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: cosine to fp32 %.4f, worst %.4f", dialect, a.Cosine, a.Worst)
		if a.Cosine < 0.985 && quant.HasDotProduct() || a.Cosine < 0.5 {
			t.Errorf("%s: cosine %.4f", dialect, a.Cosine)
		}
		if dialect == infer.DialectCPU {
			fused(t, rt, q.Data)
		}
	}
}

// fused checks what ONNX Runtime really runs: all 51 convolutions and 12 additions on integers, no float island between.
func fused(t *testing.T, rt *ort.Runtime, data []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "optimised.onnx")
	p, err := rt.Probe(data, []infer.Tensor{mobileFaceNet.input}, []string{"output0"}, ort.ProbeOptions{OptimisedPath: path})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	graph, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ops := count(t, graph)
	if ops["QLinearConv"] != 51 || ops["QLinearAdd"] != 12 || ops["QuantizeLinear"] != 1 || ops["DequantizeLinear"] != 1 || ops["Conv"]+ops["Clip"]+ops["Relu"] > 0 {
		t.Errorf("ONNX Runtime runs %v", ops)
	}
}

// Every public model is written in both dialects, loads, runs, and obeys TensorRT's rules.
func TestEveryOpenModelIsWritten(t *testing.T) {
	rt := infertest.Runtime(t)
	for _, o := range openModels {
		t.Run(o.file, func(t *testing.T) {
			c, err := quant.Calibrate(t.Context(), rt, o.read(t), []infer.Tensor{o.input}, noisy{o}, quant.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for _, dialect := range []string{infer.DialectCPU, infer.DialectTensorRT} {
				q := written(t, c, dialect)
				m, err := onnx.Read(q.Data)
				if err != nil {
					t.Fatal(err)
				}
				if dialect == infer.DialectTensorRT {
					if err := quant.CheckTensorRT(m); err != nil {
						t.Error(err)
					}
				}
				got := outputsOf(t, rt, q.Data, o.input, o.outputs, o.noise(0, o.input.Elements()))
				for _, name := range o.outputs {
					for _, v := range got[name] {
						if v-v != 0 {
							t.Fatalf("%s: output %s is no number", dialect, name)
						}
					}
				}
			}
		})
	}
}

// noisy are two noise pictures for a model.
type noisy struct{ m openModel }

func (n noisy) Len() int { return 2 }
func (n noisy) Fill(_ context.Context, i int, input []float32) error {
	copy(input, n.m.noise(uint64(i), len(input)))
	return nil
}
