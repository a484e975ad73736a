package infer_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"vigil/infer"
	"vigil/infer/preset"
)

// good is a small valid manifest.
const good = `{
 "format": 2, "id": "face-a.1", "modality": "face", "title": "t", "licence": "MIT",
 "stages": [
  {"name": "detect", "file": "d.onnx", "deadline_ms": 2.5,
   "inputs": [{"name": "in", "type": "float32", "shape": [1, 3, 8, 8]}],
   "outputs": [{"name": "out", "type": "float32", "shape": [4]}],
   "pre": {"name": "p", "params": {"size": 3}}},
  {"name": "align", "deadline_ms": 1}
 ],
 "template": {"dimension": 128, "type": "int8"},
 "thresholds": {
  "verify": {"score": 0.4, "fmr": 0.001, "dataset": "x"},
  "identify": {"score": 0.5, "fmr": 0, "dataset": "x"},
  "duplicate": {"score": -0.5, "fmr": 1, "dataset": "x"}
 },
 "files": {"d.onnx": {"sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "bytes": 4}}
}`

func parse(t testing.TB, text string) *infer.Manifest {
	t.Helper()
	m, err := infer.ParseManifest([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestParseManifest(t *testing.T) {
	m := parse(t, good)
	if m.ID != "face-a.1" || len(m.Stages) != 2 || m.Thresholds["verify"].Score != 0.4 || m.Files["d.onnx"].Bytes != 4 {
		t.Errorf("%+v", m)
	}
	if s := m.Stage("detect"); s == nil || s.Deadline() != 2500*time.Microsecond {
		t.Errorf("stage detect: %+v", s)
	}
	if m.Stage("embed") != nil {
		t.Error("a stage that is not there was found")
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	again, err := infer.ParseManifest(text)
	if err != nil {
		t.Fatal(err)
	}
	if second, _ := json.Marshal(again); !bytes.Equal(text, second) {
		t.Errorf("written and read again it differs:\n%s\n%s", text, second)
	}
}

func TestParseManifestRefuses(t *testing.T) {
	long := strings.Repeat("a", 65)
	for _, c := range []struct{ name, old, new, want string }{
		{"other format", `"format": 2`, `"format": 3`, "reads formats 1 and 2"},
		{"format missing", `"format": 2, `, ``, "format 0"},
		{"unknown field", `"title"`, `"titel"`, `unknown field "titel"`},
		{"unknown field of a stage", `"deadline_ms": 1}`, `"deadline_ms": 1, "budget": 2}`, `unknown field "budget"`},
		{"wrong type", `"format": 2`, `"format": "2"`, "format"},
		{"id empty", `"face-a.1"`, `""`, "id"},
		{"id with a slash", `"face-a.1"`, `"../x"`, "id"},
		{"id in capitals", `"face-a.1"`, `"Face"`, "id"},
		{"id begins with a dot", `"face-a.1"`, `".face"`, "id"},
		{"id too long", `"face-a.1"`, `"` + long + `"`, "id"},
		{"id with a line feed", `"face-a.1"`, `"face\n"`, "id"},
		{"modality", `"modality": "face"`, `"modality": "gait"`, "modality"},
		{"dimension small", `"dimension": 128`, `"dimension": 31`, "template.dimension"},
		{"dimension large", `"dimension": 128`, `"dimension": 1025`, "template.dimension"},
		{"template type", `"type": "int8"}`, `"type": "float32"}`, "template.type"},
		{"no stages", `"stages": [`, `"stages": [], "x": [`, `unknown field "x"`},
		{"deadline zero", `"deadline_ms": 1}`, `"deadline_ms": 0}`, `stages[1] "align"`},
		{"deadline missing", `, "deadline_ms": 1}`, `}`, "deadline_ms"},
		{"deadline endless", `"deadline_ms": 1}`, `"deadline_ms": 60001}`, "deadline_ms"},
		{"stage without a name", `{"name": "align"`, `{"name": ""`, "stages[1]"},
		{"stage twice", `{"name": "align"`, `{"name": "detect"`, "stages[1]"},
		{"tensors without a file", `"deadline_ms": 1}`, `"deadline_ms": 1, "outputs": [{"name": "o", "type": "float32", "shape": [1]}]}`, "no file"},
		{"file not listed", `"file": "d.onnx"`, `"file": "e.onnx"`, `"e.onnx" is not listed`},
		{"no inputs", `"inputs": [{"name": "in", "type": "float32", "shape": [1, 3, 8, 8]}]`, `"inputs": []`, "inputs and outputs"},
		{"tensor without a name", `"name": "in"`, `"name": ""`, "tensor"},
		{"tensor type", `"name": "in", "type": "float32"`, `"name": "in", "type": "int64"`, "tensor"},
		{"tensor of no values", `[1, 3, 8, 8]`, `[1, 3, 0, 8]`, "tensor"},
		{"tensor of negative size", `[1, 3, 8, 8]`, `[1, 3, -8, -8]`, "tensor"},
		{"tensor too large", `[1, 3, 8, 8]`, `[65536, 65536]`, "tensor"},
		{"tensor overflows", `[1, 3, 8, 8]`, `[4294967296, 4294967296, 4294967296]`, "tensor"},
		{"threshold missing", `"duplicate"`, `"dup"`, `"duplicate" is missing`},
		{"threshold unknown", `"verify": {"score": 0.4`, `"watch": {"score": 0.4, "fmr": 0, "dataset": ""}, "verify": {"score": 0.4`, "thresholds.watch"},
		{"score too high", `"score": 0.4`, `"score": 1`, "thresholds.verify"},
		{"score too low", `"score": 0.4`, `"score": -1`, "thresholds.verify"},
		{"rate too high", `"fmr": 0.001`, `"fmr": 1.1`, "thresholds.verify"},
		{"rate negative", `"fmr": 0.001`, `"fmr": -0.1`, "thresholds.verify"},
		{"file with a path", `"files": {"d.onnx"`, `"files": {"a/b": {"sha256": "", "bytes": 1}, "d.onnx"`, "plain file name"},
		{"file above", `"files": {"d.onnx"`, `"files": {"..": {"sha256": "", "bytes": 1}, "d.onnx"`, "plain file name"},
		{"file is the manifest", `"files": {"d.onnx"`, `"files": {"bundle.json": {"sha256": "", "bytes": 1}, "d.onnx"`, "plain file name"},
		{"checksum short", `9f86d081`, `9f86`, "files.d.onnx: sha256"},
		{"checksum in capitals", `9f86d081`, `9F86D081`, "files.d.onnx: sha256"},
		{"checksum not hex", `9f86d081`, `zzzzzzzz`, "files.d.onnx: sha256"},
		{"file of no bytes", `"bytes": 4`, `"bytes": 0`, "files.d.onnx: bytes"},
		{"file too large", `"bytes": 4`, `"bytes": 536870913`, "files.d.onnx: bytes"},
	} {
		if strings.Count(good, c.old) != 1 {
			t.Fatalf("%s: %q is %d times in the manifest", c.name, c.old, strings.Count(good, c.old))
		}
		m, err := infer.ParseManifest([]byte(strings.Replace(good, c.old, c.new, 1)))
		if m != nil || !errors.Is(err, infer.ErrManifest) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error about %q", c.name, err, c.want)
		}
	}
	for name, text := range map[string]string{
		"empty": "", "null": "null", "array": "[]", "cut off": good[:len(good)-1], "trailing data": good + "{}", "trailing word": good + " x",
		"no stages": strings.Replace(good, good[strings.Index(good, `"stages"`):strings.Index(good, `"template"`)], "", 1),
		"too large": good + strings.Repeat(" ", infer.MaxManifestBytes),
	} {
		if _, err := infer.ParseManifest([]byte(text)); !errors.Is(err, infer.ErrManifest) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPresetsParse(t *testing.T) {
	if len(preset.Names()) == 0 {
		t.Fatal("there are no presets")
	}
	for _, name := range preset.Names() {
		m, err := preset.Load(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m.Licence == "" || m.Title == "" {
			t.Errorf("%s: a preset says what it is and under which licence", name)
		}
		for op, th := range m.Thresholds {
			if len(th.DataSet) < 2 {
				t.Errorf("%s: threshold %s does not say what it was set on (%q)", name, op, th.DataSet)
			}
		}
	}
	if _, err := preset.Load("no-such"); err == nil || !strings.Contains(err.Error(), "face") {
		t.Errorf("unknown preset: %v, want the names there are", err)
	}
	if _, err := preset.Load("../doc"); err == nil {
		t.Error("a path was accepted as a name")
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(good))
	old, err := os.ReadFile("testdata/face-format1.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(old)
	for _, name := range preset.Names() {
		m, err := preset.Load(name)
		if err != nil {
			f.Fatal(err)
		}
		text, err := json.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(withVariant))
	f.Add([]byte("null"))
	f.Add([]byte(`{"format":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := infer.ParseManifest(data)
		if err != nil {
			if !errors.Is(err, infer.ErrManifest) || m != nil {
				t.Fatalf("%v, manifest %v", err, m != nil)
			}
			return
		}
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := infer.ParseManifest(text); err != nil {
			t.Fatalf("what was accepted is refused once written: %v\n%s", err, text)
		}
	})
}

func TestStepParametersAreStrict(t *testing.T) {
	var p struct {
		Size int `json:"size"`
	}
	for _, c := range []struct{ params, want string }{
		{"", ""}, {`{"size": 3}`, ""}, {`{"sise": 3}`, "sise"}, {`{"size": "3"}`, "size"}, {`{"size": 3} 4`, "closing brace"}, {`[`, "p"},
	} {
		s := infer.Step{Name: "p", Params: json.RawMessage(c.params)}
		err := s.Decode(&p)
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), `"p"`)) {
			t.Errorf("%s: %v, want %q", c.params, err, c.want)
		}
	}
}

func TestElements(t *testing.T) {
	for _, c := range []struct {
		shape []int64
		want  int
	}{
		{nil, 1}, {[]int64{7}, 7}, {[]int64{1, 3, 112, 112}, 37632}, {[]int64{1 << 28}, 1 << 28}, {[]int64{1 << 28, 2}, 0},
		{[]int64{0}, 0}, {[]int64{-1, 3}, 0}, {[]int64{math.MaxInt64, math.MaxInt64}, 0}, {[]int64{1 << 20, 1 << 20}, 0},
	} {
		if got := (infer.Tensor{Shape: c.shape}).Elements(); got != c.want {
			t.Errorf("%v: %d, want %d", c.shape, got, c.want)
		}
	}
}

func TestTimingLate(t *testing.T) {
	for _, c := range []struct {
		took time.Duration
		want bool
	}{{time.Millisecond, false}, {2 * time.Millisecond, false}, {2*time.Millisecond + 1, true}} {
		if got := (infer.Timing{Took: c.took, Deadline: 2 * time.Millisecond}).Late(); got != c.want {
			t.Errorf("%v: late %v", c.took, got)
		}
	}
}

func TestBundleFilesAreVerified(t *testing.T) {
	m := parse(t, good) // pins a file of the four bytes "test"
	for _, c := range []struct {
		name string
		data string
		want error
	}{{"good", "test", nil}, {"changed", "tesT", infer.ErrChecksum}, {"short", "tes", infer.ErrChecksum}, {"long", "tests", infer.ErrChecksum}, {"empty", "", infer.ErrChecksum}} {
		dir := fstest.MapFS{"d.onnx": {Data: []byte(c.data)}, infer.ManifestName: {Data: []byte(good)}}
		model, err := infer.FromDir(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		w, err := model.Open("d.onnx")
		switch {
		case !errors.Is(err, c.want) || (err == nil) != (c.want == nil):
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		case err == nil && string(w.Bytes()) != c.data:
			t.Errorf("%s: read %q", c.name, w.Bytes())
		case err != nil && (w != nil || !strings.Contains(err.Error(), "d.onnx") || !strings.Contains(err.Error(), "face-a.1")):
			t.Errorf("%s: %v must name file and bundle, and give no weights", c.name, err)
		}
	}
	if err := m.VerifyFile("other", nil); err == nil || errors.Is(err, infer.ErrChecksum) {
		t.Errorf("a file that is not listed: %v", err)
	}
}

func TestFromDirErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		dir  fstest.MapFS
		want error
	}{
		{"empty folder", fstest.MapFS{}, fs.ErrNotExist},
		{"broken manifest", fstest.MapFS{infer.ManifestName: {Data: []byte("{")}}, infer.ErrManifest},
		{"endless manifest", fstest.MapFS{infer.ManifestName: {Data: make([]byte, infer.MaxManifestBytes+9)}}, infer.ErrManifest},
	} {
		if _, err := infer.FromDir(c.dir, nil); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	model, err := infer.FromDir(fstest.MapFS{}, parse(t, good))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := model.Open("d.onnx"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "face-a.1") {
		t.Errorf("missing file: %v", err)
	}
	if _, err := model.Open("x.onnx"); err == nil {
		t.Error("a file that is not listed was opened")
	}
}
