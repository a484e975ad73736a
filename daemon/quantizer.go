package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"vigil/daemon/core"
	"vigil/infer"
	"vigil/infer/eval"
	"vigil/infer/face"
	"vigil/infer/finger"
	"vigil/infer/ort"
	"vigil/infer/preset"
	"vigil/infer/quant"
	"vigil/infer/vnni"
	"vigil/secure"
	"vigil/sensors"
)

// quantizer is one run of `vigild models quantize`.
type quantizer struct {
	o      quantizeOptions
	stderr io.Writer
	rt     *ort.Runtime  // one thread: latency is compared per thread
	on     infer.Runtime // what a device runs its models on: rt with our kernels over it
	model  *infer.Model
	stage  *infer.Stage
	pipe   *face.Pipeline   // fp32; nil for a finger bundle
	prints *finger.Pipeline // fp32; nil for a face bundle
	decode func(context.Context, string) (*sensors.Frame, error)
	fp32   *quantizeEvidence // measured once for all dialects
}

func openQuantizer(ctx context.Context, o quantizeOptions, stderr io.Writer) (q *quantizer, err error) {
	q = &quantizer{o: o, stderr: stderr, decode: decoder()}
	var manifest *infer.Manifest
	if o.preset != "" {
		if manifest, err = preset.Load(o.preset); err != nil {
			return nil, err
		}
	}
	if q.model, err = infer.FromDir(os.DirFS(o.bundle), manifest); err != nil {
		return nil, fmt.Errorf("%s: %w", o.bundle, err)
	}
	if err := q.checkStage(); err != nil {
		return nil, err
	}
	if q.rt, err = ort.Open(ort.Options{Library: o.library, Threads: 1}); err != nil {
		return nil, err
	}
	q.on = vnni.Over(q.rt)
	plain, err := eval.AtPrecision(q.model.Manifest, eval.FP32, infer.DialectCPU)
	if err == nil {
		fp32 := &infer.Model{Manifest: plain, Open: q.model.Open}
		if plain.Modality == core.Finger {
			q.prints, err = finger.New(ctx, q.on, fp32)
		} else {
			q.pipe, err = face.New(ctx, q.on, fp32)
		}
	}
	if err != nil {
		return nil, errors.Join(err, q.rt.Close())
	}
	return q, nil
}

func (q *quantizer) close() error {
	var errs []error
	if q.pipe != nil {
		errs = append(errs, q.pipe.Close())
	}
	if q.prints != nil {
		errs = append(errs, q.prints.Close())
	}
	return errors.Join(append(errs, q.rt.Close())...)
}

// checkStage finds the stage and refuses what cannot be fed with pictures here.
func (q *quantizer) checkStage() error {
	m := q.model.Manifest
	var have []string
	for _, s := range m.Stages {
		if s.File != "" {
			have = append(have, s.Name)
		}
	}
	if q.stage = m.Stage(q.o.stage); q.stage == nil || q.stage.File == "" {
		return fmt.Errorf("bundle %s has no stage %q that runs a model; it has %s", m.ID, q.o.stage, strings.Join(have, ", "))
	}
	isFace := m.Modality == core.Face && (q.o.stage == face.StageDetect || q.o.stage == face.StageEmbed)
	isFinger := m.Modality == core.Finger && q.o.stage == finger.StageExtract
	if !isFace && !isFinger {
		return fmt.Errorf("stage %q of modality %q: only %q and %q of a face bundle, and %q of a finger bundle, can be calibrated on pictures",
			q.o.stage, m.Modality, face.StageDetect, face.StageEmbed, finger.StageExtract)
	}
	if q.o.pairs != "" && !isFace || q.o.boxes != "" && q.o.stage != face.StageDetect || q.o.prints != "" && !isFinger {
		return fmt.Errorf("stage %q cannot be measured so: --pairs is for %q and %q, --boxes for %q, --prints for %q", q.o.stage,
			face.StageEmbed, face.StageDetect, face.StageDetect, finger.StageExtract)
	}
	return nil
}

func (q *quantizer) run(ctx context.Context) (*quantizeReport, error) {
	w, err := q.model.Open(q.stage.File)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	taken, held, err := q.pictures(ctx)
	if err != nil {
		return nil, err
	}
	o, err := q.o.settings()
	if err != nil {
		return nil, err
	}
	o.Progress = q.progress()
	c, err := quant.Calibrate(ctx, q.rt, w.Bytes(), q.stage.Inputs, taken, o)
	if err != nil {
		return nil, fmt.Errorf("stage %s, file %s: %w", q.stage.Name, q.stage.File, err)
	}
	r := &quantizeReport{
		Model: q.model.Manifest.ID, Stage: q.stage.Name, Runtime: q.on.Name(), Pictures: taken.Len(), NoFace: taken.without + held.without, Method: q.o.method,
	}
	dialects, err := q.o.dialects()
	if err != nil {
		return nil, err
	}
	keep := map[string][]byte{}
	var variants []infer.Variant
	for _, dialect := range dialects {
		v, data, err := q.variant(ctx, c, dialect, w.Bytes(), held)
		if err != nil {
			return nil, fmt.Errorf("dialect %s: %w", dialect, err)
		}
		if v.File != "" {
			keep[v.File] = data
			variants = append(variants, infer.Variant{
				Precision: "int8", Dialect: dialect, File: v.File, Gate: v.Gate,
				Calibration: fmt.Sprintf("%s over %d pictures of %s", q.o.method, taken.Len(), filepath.Base(filepath.Clean(q.o.calib))),
			})
		}
		r.Variants = append(r.Variants, *v)
	}
	if len(variants) == 0 {
		return r, nil
	}
	r.Written, err = q.write(variants, keep)
	return r, err
}

// progress shows one line per step of the calibration.
func (q *quantizer) progress() func(what string, done, total int) {
	var p *progress
	last := ""
	return func(what string, done, total int) {
		if what != last || done == 1 {
			p, last = newProgress(q.stderr, "calibration: "+what), what
		}
		p.update(done, total)
	}
}

// variant writes one dialect, measures it and asks the gate.
func (q *quantizer) variant(ctx context.Context, c *quant.Calibration, dialect string, fp32 []byte, held quant.Samples) (*quantizeVariant, []byte, error) {
	out, err := c.Write(ctx, dialect)
	if err != nil {
		return nil, nil, err
	}
	file := variantName(q.stage.File, dialect, out.Data)
	v := &quantizeVariant{Dialect: dialect, Bytes: len(out.Data), Layers: out.Layers}
	e, err := q.evidence(ctx, v, file, fp32, out.Data, held)
	if err != nil {
		return nil, nil, err
	}
	gate, in := quant.Judge(*e, quant.Limits{MostLoss: q.o.mostLoss}, q.o.force)
	v.Gate = gate
	if in {
		v.File = file
	}
	return v, out.Data, nil
}

// variantName holds a part of the checksum, so that a new variant never takes the place of one that bundle.json still pins.
func variantName(file, dialect string, data []byte) string {
	sum := sha256.Sum256(data)
	return fmt.Sprintf("%s.%s-%x.onnx", strings.TrimSuffix(file, ".onnx"), dialect, sum[:4])
}

// write puts the variants and then bundle.json in place, each atomically: at any moment the folder is a whole bundle, the
// old one or the new one. Variants of the stage that went are removed last.
func (q *quantizer) write(variants []infer.Variant, files map[string][]byte) (string, error) {
	dir := q.o.output
	if dir == "" {
		dir = q.o.bundle
	} else if err := q.copyBundle(dir); err != nil {
		return "", err
	}
	m := *q.model.Manifest
	m.ID = cmp.Or(q.o.id, m.ID)
	m.Stages, m.Files = slices.Clone(m.Stages), map[string]infer.FileSpec{}
	for name, f := range q.model.Manifest.Files {
		m.Files[name] = f
	}
	s := m.Stage(q.stage.Name)
	var gone []string
	for _, old := range s.Variants {
		if files[old.File] == nil && slices.ContainsFunc(variants, func(v infer.Variant) bool { return v.Dialect == old.Dialect }) {
			gone = append(gone, old.File)
			delete(m.Files, old.File)
		} else if files[old.File] == nil {
			variants = append(variants, old)
		}
	}
	s.Variants = variants
	for name, data := range files {
		sum := sha256.Sum256(data)
		m.Files[name] = infer.FileSpec{SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(data))}
		if err := secure.WriteFileAtomic(filepath.Join(dir, name), data, 0o644); err != nil {
			return "", err
		}
	}
	text, err := json.MarshalIndent(&m, "", "  ")
	if err != nil {
		return "", err
	}
	if _, err := infer.ParseManifest(text); err != nil {
		return "", fmt.Errorf("the new bundle.json: %w", err)
	}
	if err := secure.WriteFileAtomic(filepath.Join(dir, infer.ManifestName), append(text, '\n'), 0o644); err != nil {
		return "", err
	}
	for _, name := range gone {
		os.Remove(filepath.Join(dir, name)) // nothing names it any more
	}
	return dir, nil
}

// copyBundle copies the verified files of the bundle to another folder.
func (q *quantizer) copyBundle(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name := range q.model.Manifest.Files {
		w, err := q.model.Open(name)
		if err != nil {
			return err
		}
		err = errors.Join(secure.WriteFileAtomic(filepath.Join(dir, name), w.Bytes(), 0o644), w.Close())
		if err != nil {
			return err
		}
	}
	return nil
}
