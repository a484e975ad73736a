package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vigil/infer"
	"vigil/infer/face"
	"vigil/infer/infertest"
	"vigil/infer/quant"
	"vigil/infer/quant/onnx"
)

// quantized runs the command on the preset of the public models and reads its report.
func quantized(t *testing.T, code int, args ...string) quantizeReport {
	t.Helper()
	var out, errs bytes.Buffer
	all := append([]string{"models", "quantize", infertest.Data(t, "models"), "--preset", "face", "--runtime-library", infertest.Library(t), "--json"}, args...)
	if got := Run(t.Context(), Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs}, all); got != code {
		t.Fatalf("exit code %d, want %d: %s", got, code, errs.String())
	}
	var r quantizeReport
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	return r
}

// YuNet in INT8 finds every annotated face and adds no false one; what the gate thinks of its speed is another matter.
func TestQuantizedDetectorFindsAllFaces(t *testing.T) {
	dir := t.TempDir()
	r := quantized(t, 0, "--stage", "detect", "--calib", infertest.Data(t, "faces", "lfw"), "--samples", "24", "--dialect", "cpu", "--runs", "3", "--force",
		"--boxes", infertest.Data(t, "photos", "dlib", "training.xml"), "--output", dir)
	v := r.Variants[0]
	if v.Detail != "fp32 18 of 18 faces, 0 false; INT8 18 of 18 faces, 0 false" {
		t.Errorf("detail %q", v.Detail)
	}
	if v.Gate.Verdict != quant.Passed && v.Gate.Verdict != quant.Forced || v.Gate.FP32 != 1 || v.Gate.Variant != 1 || v.Gate.Seconds <= 0 || v.Gate.Machine == "" {
		t.Errorf("gate %+v", v.Gate)
	}
	if len(v.Layers) != 53 {
		t.Errorf("%d layers in the table, the model has 53", len(v.Layers))
	}
	checkBundle(t, dir, "detect", v)
}

// checkBundle opens the written folder as a bundle, checks every file, and runs the variant in the pipeline.
func checkBundle(t *testing.T, dir, stage string, v quantizeVariant) {
	t.Helper()
	m, err := infer.FromDir(os.DirFS(dir), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := m.Manifest.Stage(stage)
	if len(s.Variants) != 1 || s.Variants[0].File != v.File || s.Variants[0].Dialect != v.Dialect || s.Variants[0].Gate != v.Gate || s.Variants[0].Precision != "int8" {
		t.Fatalf("variants %+v", s.Variants)
	}
	for name := range m.Manifest.Files {
		if _, err := m.Open(name); err != nil {
			t.Error(err)
		}
	}
	s.File = v.File
	pipe, err := face.New(t.Context(), infertest.Runtime(t), m)
	if err != nil {
		t.Fatal(err)
	}
	if err := pipe.Close(); err != nil {
		t.Error(err)
	}
}

// Whole pictures are aligned by the bundle itself; without a labelled set, agreement with fp32 decides.
func TestQuantizedEmbedderAgrees(t *testing.T) {
	dir := t.TempDir()
	args := []string{"--stage", "embed", "--calib", infertest.Data(t, "faces", "azure-mit"), "--samples", "6", "--dialect", "tensorrt", "--most-loss", "0.1", "--output", dir}
	v := quantized(t, 0, args...).Variants[0]
	if v.Gate.Verdict != quant.Passed || v.Gate.Variant < 0.9 || !strings.Contains(v.Gate.Reason, "accuracy alone decided") || v.Ratio != nil {
		t.Errorf("gate %+v", v.Gate)
	}
	checkBundle(t, dir, "embed", v)
	data, err := os.ReadFile(filepath.Join(dir, v.File))
	if err != nil {
		t.Fatal(err)
	}
	m, err := onnx.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := quant.CheckTensorRT(m); err != nil {
		t.Error(err)
	}
}

// A variant that loses more than is allowed stays out: nothing is written, and the exit code says so.
func TestRefusedVariantStaysOut(t *testing.T) {
	dir := t.TempDir()
	r := quantized(t, exitProblem, "--stage", "embed", "--calib", infertest.Data(t, "faces", "azure-mit"), "--samples", "2", "--dialect", "tensorrt",
		"--most-loss", "0", "--output", dir)
	if v := r.Variants[0]; r.Written != "" || v.File != "" || v.Gate.Verdict != quant.Refused || !strings.Contains(v.Gate.Reason, "loses") {
		t.Errorf("%+v", r)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		t.Errorf("written: %v, %v", list, err)
	}
}

// Crops that are aligned already say nothing about a detector.
func TestDetectorIsNotJudgedByCrops(t *testing.T) {
	var out, errs bytes.Buffer
	args := []string{"models", "quantize", infertest.Data(t, "models"), "--preset", "face", "--runtime-library", infertest.Library(t), "--dialect", "cpu", "--stage", "detect",
		"--calib", infertest.Data(t, "photos"), "--samples", "2", "--pairs", infertest.Data(t, "protocols", "lfw_aligned112_pairs_open.txt"),
		"--pictures", infertest.Data(t, "faces", "lfw_aligned112"), "--output", t.TempDir()}
	if code := Run(t.Context(), Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs}, args); code != 1 || !strings.Contains(errs.String(), "aligned crops") {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
}

// A second run replaces the variant of the same dialect, and keeps that of the other.
func TestVariantIsReplaced(t *testing.T) {
	dir := t.TempDir()
	base := []string{"--stage", "detect", "--calib", infertest.Data(t, "photos"), "--samples", "3", "--runs", "1", "--force", "--most-loss", "1"}
	first := quantized(t, 0, append(base, "--output", dir)...)
	if len(first.Variants) != 2 {
		t.Fatalf("%+v", first)
	}
	var out, errs bytes.Buffer
	args := append([]string{"models", "quantize", dir, "--runtime-library", infertest.Library(t), "--dialect", "cpu", "--method", "minmax", "--id", "face-small"}, base...)
	if code := Run(t.Context(), Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs}, args); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	if !strings.Contains(out.String(), "Conv_0 ") || !strings.Contains(out.String(), "gate      ") {
		t.Errorf("output %s", out.String())
	}
	m, err := infer.FromDir(os.DirFS(dir), nil)
	if err != nil {
		t.Fatal(err)
	}
	if m.Manifest.ID != "face-small" {
		t.Errorf("id %q", m.Manifest.ID)
	}
	if n := len(m.Manifest.Stage("detect").Variants); n != 2 {
		t.Errorf("%d variants", n)
	}
	if _, err := os.Stat(filepath.Join(dir, first.Variants[0].File)); err == nil {
		t.Error("the file of the replaced variant is still there")
	}
	for name := range m.Manifest.Files {
		if _, err := m.Open(name); err != nil {
			t.Error(err)
		}
	}
}
