package core_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/daemon/vault"
	"vigil/infer"
	"vigil/infer/infertest"
	"vigil/infer/infertest/fake"
	"vigil/infer/preset"
)

// TestEveryOpenModelGetsThroughTheDoor imports every preset whose files are in the data folder. Together they must use
// every model there.
func TestEveryOpenModelGetsThroughTheDoor(t *testing.T) {
	models := infertest.Data(t, "models")
	d := daemontest.New(t)
	a := d.Open(t)
	defer closeApp(t, a)
	used := map[string]bool{}
	for _, name := range preset.Names() {
		m := must[*infer.Manifest](t)(preset.Load(name))
		there := true
		for file := range m.Files {
			_, err := os.Stat(filepath.Join(models, file))
			there = there && err == nil
		}
		_, err := a.ImportModel(t.Context(), models, name)
		if !there {
			if !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s without its files: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for file := range m.Files {
			used[file] = true
		}
		r := must[core.ModelReport](t)(a.VerifyModel(t.Context(), m.ID))
		if !r.Good || len(r.Files) != len(m.Files) || len(r.WarmUps) != len(m.Files) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	files := must[[]string](t)(filepath.Glob(filepath.Join(models, "*.onnx")))
	if len(files) < 9 {
		t.Errorf("only %d models", len(files))
	}
	for _, f := range files {
		if !used[filepath.Base(f)] {
			t.Errorf("no preset takes %s", filepath.Base(f))
		}
	}
}

// TestTheModelThatCannotRunIsRefused: the fixture loads, but its first run fails, and so does its import.
func TestTheModelThatCannotRunIsRefused(t *testing.T) {
	const file = "face_detection_yunet_2023mar_int8bq.onnx"
	fixture := infertest.Data(t, "models", "fixtures", file)
	d := daemontest.New(t)
	a := d.Open(t)
	defer closeApp(t, a)
	dir, m := t.TempDir(), infertest.Model(t).Manifest
	daemontest.UseDetector640(t, m, dir, fixture)
	embedder := "mobilefacenet_foamliu.onnx"
	if err := os.WriteFile(filepath.Join(dir, embedder), must[[]byte](t)(os.ReadFile(infertest.Data(t, "models", embedder))), 0o600); err != nil {
		t.Fatal(err)
	}
	daemontest.WriteManifest(t, dir, m)
	_, err := a.ImportModel(t.Context(), dir, "")
	for _, word := range []string{"cannot import from " + dir, "stage detect", file, "warm-up run fails", "cannot be used"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%v does not say %q", err, word)
		}
	}
	if list := imported(t, a); len(list) != 0 {
		t.Errorf("it was imported: %+v", list)
	}
}

func TestSeveralBundlesAreChosenByModality(t *testing.T) {
	rt := fake.New()
	d := daemontest.NewFake(t, rt, fake.Manifest("fake-a", false))
	d.Import(t, fake.Write(t, fake.Manifest("fake-b", false), nil), "")
	a := d.Open(t)
	err := a.Start(t.Context())
	if !errors.Is(err, core.ErrModelChoice) || !strings.Contains(err.Error(), "fake-a, fake-b") || !strings.Contains(err.Error(), "models.face") {
		t.Errorf("two and none chosen: %v", err)
	}
	list := imported(t, a)
	if len(list) != 2 || list[0].InUse || list[1].InUse {
		t.Errorf("%+v", list)
	}
	if err := a.RemoveModel(t.Context(), "fake-a"); err != nil {
		t.Errorf("a bundle that is too many cannot be removed: %v", err)
	}
	closeApp(t, a)
	a = d.Open(t)
	if list := imported(t, a); len(list) != 1 || !list[0].InUse || list[0].Runtime != "fake" {
		t.Errorf("the only one is not in use: %+v", list)
	}
	if err := a.RemoveModel(t.Context(), "fake-b"); !errors.Is(err, core.ErrModelInUse) {
		t.Errorf("removal of the one in use: %v", err)
	}
	closeApp(t, a)

	d.Config.Models.Face = "fake-c"
	a = d.Open(t)
	if err := a.Start(t.Context()); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
	closeApp(t, a)
	d.Config.Models.Face, d.Config.Models.Finger = "", "fake-b"
	a = d.Open(t)
	defer closeApp(t, a)
	if err := a.Start(t.Context()); !errors.Is(err, core.ErrModelChoice) || !strings.Contains(err.Error(), "models.finger") {
		t.Errorf("a face bundle chosen for fingers: %v", err)
	}
}

func TestImportRefuses(t *testing.T) {
	rt := fake.New()
	d := daemontest.NewFake(t, rt, nil)
	a := d.Open(t)
	defer closeApp(t, a)
	changed := func(change func(m *infer.Manifest)) string {
		m := fake.Manifest("fake", true)
		change(m)
		return fake.Write(t, m, nil)
	}
	text := filepath.Join(t.TempDir(), "text.tar")
	if err := os.WriteFile(text, []byte("no tar"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path, preset string
		is                 error
		want               string
	}{
		{"another modality", changed(func(m *infer.Manifest) { m.Modality = "finger" }), "", nil, `a finger bundle has "minutiae"`},
		{"an unknown step", changed(func(m *infer.Manifest) { m.Stage("detect").Post.Name = "ssd" }), "", nil, `unknown name "ssd": there are "ultraface", "yunet"`},
		{"an unknown kind", changed(func(m *infer.Manifest) { m.Stage("quality").Kind = "beauty" }), "", nil, `"quality" is missing`},
		{"boxes without points", changed(func(m *infer.Manifest) {
			m.Stage("detect").Post.Name = "ultraface"
			m.Stage("detect").Outputs = []infer.Tensor{{Name: "boxes", Type: "float32", Shape: []int64{9, 4}}, {Name: "scores", Type: "float32", Shape: []int64{9, 2}}}
		}), "", nil, `finds boxes only`},
		{"a model that nobody plays", changed(func(m *infer.Manifest) { m.Stage("embed").File = "liveness-near.onnx" }), "", nil, "does not"},
		{"no tar", text, "", infer.ErrTar, "tar -C DIR"},
		{"a device", "/dev/zero", "", infer.ErrTar, "neither a folder nor a file"},
		{"no such preset", "/", "gait", preset.ErrUnknown, "face-liveness"},
		{"nothing", "/nowhere", "", os.ErrNotExist, "/nowhere"},
	} {
		if c.name == "a model that nobody plays" {
			rt.Play("fake liveness near", func(_, _ [][]float32) error { return errors.New("does not run") })
		}
		_, err := a.ImportModel(t.Context(), c.path, c.preset)
		if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if list := imported(t, a); len(list) != 0 {
		t.Errorf("imported all the same: %+v", list)
	}
}

// imported lists the bundles but the one in the binary.
func imported(t *testing.T, a *core.Appliance) []core.ModelInfo {
	t.Helper()
	list := must[[]core.ModelInfo](t)(a.Models())
	if len(list) == 0 || !list[0].BuiltIn || list[0].Modality != core.Finger || list[0].Problem != "" {
		t.Fatalf("the bundle in the binary is not listed first: %+v", list)
	}
	return list[1:]
}

// variantOf is a bundle whose embedder has an int8 variant.
func variantOf(t *testing.T, rt *fake.Runtime, id string) string {
	t.Helper()
	m := fake.Manifest(id, false)
	m.Stage("embed").Variants = []infer.Variant{{
		Precision: "int8", Dialect: infer.DialectCPU, File: "embed8.onnx", Calibration: "none",
		Gate: infer.Gate{Verdict: infer.VerdictPassed, Metric: "accuracy", FP32: 0.99, Variant: 0.98, FP32Seconds: 2, Seconds: 1},
	}}
	rt.Play("fake embedder of int8", func(in, out [][]float32) error {
		for i := range out[0] {
			out[0][i] = float32(i + 1)
		}
		return nil
	})
	return fake.Write(t, m, map[string]string{"embed8.onnx": "fake embedder of int8"})
}

func TestTheVariantThatTheRuntimePrefersRuns(t *testing.T) {
	for _, c := range []struct {
		prefers   []string
		file, why string
	}{
		{[]string{infer.DialectCPU}, "embed8.onnx", "passed"},
		{[]string{infer.DialectTensorRT}, "embed.onnx", "prefers qdq-s8"},
		{nil, "embed.onnx", "prefers none"},
	} {
		rt := fake.New()
		rt.Prefers = c.prefers
		d := daemontest.NewFake(t, rt, nil)
		d.Import(t, variantOf(t, rt, "fake"), "")
		a := d.Open(t)
		info := imported(t, a)[0]
		i := slices.IndexFunc(info.Choices, func(c infer.Choice) bool { return c.Stage == "embed" })
		if !info.InUse || i < 0 || info.Choices[i].File != c.file || !strings.Contains(info.Choices[i].Reason, c.why) {
			t.Errorf("%v: %+v", c.prefers, info)
		}
		int8, float := rt.Runs("fake embedder of int8"), rt.Runs("fake embedder")
		must[[]core.Decision](t)(a.Identify(t.Context(), fake.Picture(t, 3, true, true, 1)))
		ranInt8, ranFloat := rt.Runs("fake embedder of int8")-int8, rt.Runs("fake embedder")-float
		if want := c.file == "embed8.onnx"; (ranInt8 > 0) != want || (ranFloat > 0) == want {
			t.Errorf("%v: int8 ran %d times, float %d", c.prefers, ranInt8, ranFloat)
		}
		r := must[core.ModelReport](t)(a.VerifyModel(t.Context(), "fake"))
		if want := map[string]int{"embed8.onnx": 3, "embed.onnx": 2}[c.file]; !r.Good || len(r.WarmUps) != want {
			t.Errorf("%v: %+v", c.prefers, r)
		}
		closeApp(t, a)
	}
}

// TestExportAndImportAgain: a tar of a sealed bundle is the same bundle on another device; the export is audited.
func TestExportAndImportAgain(t *testing.T) {
	rt := fake.New()
	rt.Prefers = []string{infer.DialectCPU}
	d := daemontest.NewFake(t, rt, nil)
	d.Import(t, variantOf(t, rt, "fake"), "")
	a := d.Open(t)
	var b bytes.Buffer
	if err := a.ExportModel(t.Context(), "fake", &b); err != nil {
		t.Fatal(err)
	}
	if err := a.ExportModel(t.Context(), "other", &b); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
	if kinds := a.AuditTypes(t); !slices.Contains(kinds, "model.export") {
		t.Errorf("audited: %v", kinds)
	}
	closeApp(t, a)

	path := filepath.Join(t.TempDir(), "fake.tar")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	detail := must[core.ModelDetail](t)(core.InspectBundle(path, ""))
	if detail.ID != "fake" || len(detail.Files) != 3 || detail.Problem != "" || detail.Choices[1].File != "embed8.onnx" {
		t.Errorf("%+v", detail)
	}
	d.Import(t, path, "") // the same: nothing changes
	other := daemontest.NewFake(t, rt, nil)
	other.Import(t, path, "")
	a = other.Open(t)
	defer closeApp(t, a)
	if r := must[core.ModelReport](t)(a.VerifyModel(t.Context(), "fake")); !r.Good {
		t.Errorf("%+v", r)
	}
}

func TestVerifyFindsDamage(t *testing.T) {
	rt := fake.New()
	d := daemontest.NewFake(t, rt, fake.Manifest("fake", true))
	a := d.Open(t)
	defer closeApp(t, a)
	rt.Play("fake liveness wide", func(_, _ [][]float32) error { return errors.New("node 7") })
	r := must[core.ModelReport](t)(a.VerifyModel(t.Context(), "fake"))
	if i := slices.IndexFunc(r.WarmUps, func(w core.WarmUp) bool { return w.Stage == "liveness-wide" }); r.Good || i < 0 || !strings.Contains(r.WarmUps[i].Problem, "node 7") {
		t.Errorf("a model that does not run: %+v", r)
	}
	sealed := filepath.Join(d.Config.StateDir, "models", "fake", "embed.onnx.sealed")
	data := must[[]byte](t)(os.ReadFile(sealed))
	data[len(data)/2] ^= 1
	if err := os.WriteFile(sealed, data, 0o600); err != nil {
		t.Fatal(err)
	}
	r = must[core.ModelReport](t)(a.VerifyModel(t.Context(), "fake"))
	if i := slices.IndexFunc(r.Files, func(f core.FileState) bool { return f.Problem != "" }); r.Good || i < 0 || r.Files[i].Name != "embed.onnx" {
		t.Errorf("a damaged file: %+v", r)
	}
	if err := a.ExportModel(t.Context(), "fake", &bytes.Buffer{}); err == nil {
		t.Error("a damaged bundle was exported")
	}
	if _, err := a.VerifyModel(t.Context(), "nothing"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
}

// TestPresetOfAnyEmbedder: the bundle made of the user's own file names its tensors and pins it.
func TestPresetOfAnyEmbedder(t *testing.T) {
	models := infertest.Data(t, "models")
	rt := fake.New()
	d := daemontest.NewFake(t, rt, nil)
	dir := t.TempDir()
	detector := must[[]byte](t)(os.ReadFile(filepath.Join(models, "yunet_s_320_320.onnx")))
	rt.Play(string(detector), func(_, _ [][]float32) error { return nil })
	rt.Play("my embedder", func(_, out [][]float32) error { out[0][0] = 1; return nil })
	for name, data := range map[string][]byte{"yunet_s_320_320.onnx": detector, "arcface512.onnx": []byte("my embedder")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.Import(t, dir, "face-arcface512")
	a := d.Open(t)
	defer closeApp(t, a)
	m := must[core.ModelDetail](t)(a.Model("face-yunet320-arcface512")).Manifest
	if s := m.Stage("embed"); s.Inputs[0].Name != "x" || s.Outputs[0].Name != "y" || m.Files["arcface512.onnx"].Bytes != 11 {
		t.Errorf("%+v %+v", s, m.Files)
	}
}
