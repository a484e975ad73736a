package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"vigil/bench/open"
	"vigil/infer"
	"vigil/infer/face"
	"vigil/infer/ort"
	"vigil/infer/preset"
	"vigil/infer/quant"
)

// models are the files that all servers run.
type models struct {
	detector, embedder string // what the peer loads
	bundle             string // what ours imports: the same, with the manifest
	precision          string
	threshold          float64
}

// shipped is what each server's users have: ours makes 8 bits of a model and judges them, the peer runs the published file.
const shipped = "shipped"

// prepare writes the bundle to dir: the face preset as it is, or with the embedder in 8 bits, made and judged here.
func prepare(ctx context.Context, dir, precision string) (_ models, err error) {
	m := models{bundle: dir, precision: precision}
	if !slices.Contains([]string{shipped, infer.PrecisionFP32, infer.PrecisionINT8}, precision) {
		return m, fmt.Errorf("precision %q: %s, %s or %s", precision, shipped, infer.PrecisionFP32, infer.PrecisionINT8)
	}
	manifest, err := preset.Load("face")
	if err != nil {
		return m, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return m, err
	}
	for name := range manifest.Files {
		data, err := os.ReadFile(filepath.Join(open.Data(), "models", name))
		if err != nil {
			return m, err
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return m, err
		}
	}
	embed := manifest.StagesOf(face.StageEmbed)[0]
	m.detector, m.embedder = filepath.Join(dir, manifest.StagesOf(face.StageDetect)[0].File), filepath.Join(dir, embed.File)
	m.threshold = float64(manifest.Thresholds["identify"].Score)
	if precision != infer.PrecisionFP32 {
		int8, err := quantise(ctx, dir, manifest, embed)
		if err != nil {
			return m, err
		}
		if precision == infer.PrecisionINT8 {
			m.embedder = int8
		}
	}
	text, err := json.MarshalIndent(manifest, "", "  ")
	if err != nil {
		return m, err
	}
	return m, os.WriteFile(filepath.Join(dir, "bundle.json"), text, 0o600)
}

// quantise adds the embedder in 8 bits to the bundle, if the gate lets it in.
func quantise(ctx context.Context, dir string, manifest *infer.Manifest, embed *infer.Stage) (path string, err error) {
	rt, err := ort.Open(ort.Options{Threads: 1})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, rt.Close()) }()
	model := open.Models()[0] // the embedder of the preset
	fp32, err := model.Read()
	if err != nil {
		return "", err
	}
	samples, err := model.Take(64, 0)
	if err != nil {
		return "", err
	}
	c, err := quant.Calibrate(ctx, rt, fp32, []infer.Tensor{model.Input}, samples, quant.Options{})
	if err != nil {
		return "", err
	}
	q, err := c.Write(ctx, infer.DialectCPU)
	if err != nil {
		return "", err
	}
	gate, in, err := judge(ctx, rt, model, [2][]byte{fp32, q.Data})
	if err != nil {
		return "", err
	}
	if !in {
		return "", fmt.Errorf("the gate refuses 8 bits on this machine: %s", gate.Reason)
	}
	const name = "embed_int8.onnx"
	sum := sha256.Sum256(q.Data)
	manifest.ID += "-int8"
	manifest.Files[name] = infer.FileSpec{SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(q.Data))}
	embed.Variants = append(embed.Variants, infer.Variant{Precision: infer.PrecisionINT8, Dialect: infer.DialectCPU, File: name, Calibration: "least squared error, 64 pictures of LFW", Gate: gate})
	path = filepath.Join(dir, name)
	return path, os.WriteFile(path, q.Data, 0o600)
}

// judge is the gate, on the aligned pairs.
func judge(ctx context.Context, rt *ort.Runtime, m open.Model, files [2][]byte) (gate infer.Gate, in bool, err error) {
	pairs, err := open.AlignedPairs()
	if err != nil {
		return gate, false, err
	}
	e := quant.Evidence{DataSet: "1,200 aligned pairs of LFW", Metric: "verification accuracy", Percent: true, Machine: rt.Name()}
	for i, to := range []*float64{&e.FP32, &e.Variant} {
		got, err := m.Embed(ctx, rt, files[i], pairs, nil)
		if err != nil {
			return gate, false, err
		}
		*to = got.Accuracy(pairs)
	}
	if e.Latency, err = m.Race(ctx, rt, files, 100); err != nil {
		return gate, false, err
	}
	gate, in = quant.Judge(e, quant.Limits{MostLoss: 0.001}, false)
	return gate, in, nil
}
