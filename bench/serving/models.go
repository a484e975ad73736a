package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"vigil/bench/open"
	"vigil/infer"
	"vigil/infer/face"
	"vigil/infer/preset"
)

// models are the files that all servers run.
type models struct {
	detector, embedder string // what the peer loads
	bundle             string // what ours imports: the same, with the manifest
	precision          string
	gates              []string // of the stages that ours runs in 8 bits, in words
	threshold          float64
}

// shipped is what each server's users have: ours makes 8 bits of a model and judges them, the peer runs the published file.
const shipped = "shipped"

// prepare writes the bundle to dir: the face preset as it is, or with the variants that vigild makes of it and lets in.
func prepare(ctx context.Context, dir string, o *options) (_ models, err error) {
	m := models{bundle: dir, precision: o.precision}
	if !slices.Contains([]string{shipped, infer.PrecisionFP32, infer.PrecisionINT8}, o.precision) {
		return m, fmt.Errorf("precision %q: %s, %s or %s", o.precision, shipped, infer.PrecisionFP32, infer.PrecisionINT8)
	}
	if o.precision == infer.PrecisionFP32 {
		err = asPublished(dir)
	} else {
		err = quantise(ctx, o.vigild, dir)
	}
	if err != nil {
		return m, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "bundle.json"))
	if err != nil {
		return m, err
	}
	manifest, err := infer.ParseManifest(text)
	if err != nil {
		return m, err
	}
	m.threshold = float64(manifest.Thresholds["identify"].Score)
	for stage, path := range map[string]*string{face.StageDetect: &m.detector, face.StageEmbed: &m.embedder} {
		s := manifest.StagesOf(stage)[0]
		*path = filepath.Join(dir, s.File)
		for _, v := range s.Variants {
			m.gates = append(m.gates, fmt.Sprintf("%s: %s", stage, v.Gate.Reason))
			if o.precision == infer.PrecisionINT8 {
				*path = filepath.Join(dir, v.File)
			}
		}
	}
	return m, nil
}

// asPublished writes the preset with its files.
func asPublished(dir string) error {
	manifest, err := preset.Load("face")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name := range manifest.Files {
		data, err := os.ReadFile(filepath.Join(open.Data(), "models", name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	text, err := json.MarshalIndent(manifest, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "bundle.json"), text, 0o600)
}

// refused is the exit code of `vigild models quantize` where its gate lets nothing in.
const refused = 4

// quantise makes the bundle as an integrator does. The embedder must pass its gate; the detector passes it only where 8 bits
// are faster than float, which is so on processors that our kernels run on.
func quantise(ctx context.Context, vigild, dir string) error {
	fmt.Fprintln(os.Stderr, "quantising and judging the models (a minute)")
	data := open.Data()
	aligned := filepath.Join(data, "faces", "lfw_aligned112")
	err := quantize(ctx, vigild, filepath.Join(data, "models"), "--preset", "face", "--output", dir, "--stage", face.StageEmbed, "--calib", aligned,
		"--pictures", aligned, "--pairs", filepath.Join(data, "protocols", "lfw_aligned112_pairs_open.txt"))
	if err != nil {
		return err
	}
	pictures := filepath.Join(data, "faces", "lfw")
	err = quantize(ctx, vigild, dir, "--stage", face.StageDetect, "--calib", pictures,
		"--pictures", pictures, "--pairs", filepath.Join(data, "protocols", "lfw_pairs_open.txt"))
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == refused {
		fmt.Fprintln(os.Stderr, "the detector stays in float:", err)
		return nil
	}
	return err
}

func quantize(ctx context.Context, vigild string, args ...string) error {
	args = append([]string{"models", "quantize", "--dialect", "cpu", "--samples", "64"}, args...)
	out, err := exec.CommandContext(ctx, vigild, args...).CombinedOutput()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("models quantize: %w: %s", err, lines[len(lines)-1])
	}
	return nil
}
