package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"vigil/infer/eval"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sample is a report with a section of every kind; names hold what must be escaped.
func sample(t *testing.T) *eval.Report {
	t.Helper()
	p := &eval.Protocol{Name: "pairs", Title: "a < b & c", Folds: 1}
	for _, id := range []string{"a/1", "a/2", "b/1", "b/2", "c<i>/1", "c<i>/2"} {
		p.Samples = append(p.Samples, eval.Sample{ID: id, Subject: id[:strings.Index(id, "/")]})
	}
	every, err := p.Every()
	if err != nil {
		t.Fatal(err)
	}
	p.Comparisons = every.Comparisons
	ours, theirs := &eval.Run{Name: "ours", System: "system <1>", Seconds: 0.0125}, &eval.Run{Name: "theirs"}
	for i, c := range p.Comparisons {
		v := float64(i%5) / 10
		if c.Mated {
			v += 0.35
		}
		ours.Scores, theirs.Scores = append(ours.Scores, v), append(theirs.Scores, v*v)
	}
	theirs.Scores[0] = eval.NoScore
	theirs.Failures = []eval.Failure{{ID: "a/1", Kind: "acquire", Reason: "dark"}}
	o := eval.Options{Seed: 3, Replicates: 40}
	r := eval.NewReport("Test <report>", "vigild test", "2026-01-02T03:04:05Z", o.Seed)
	v, err := eval.Verify(p, []*eval.Run{ours, theirs}, o)
	if err != nil {
		t.Fatal(err)
	}
	s := &eval.Search{Samples: p.Samples, Enrol: [][]int{{0}, {2}}, Mated: []eval.Probe{{Sample: 1, Enrol: 0}, {Sample: 3, Enrol: 1}}, Others: []int{4, 5}, Sizes: []int{2}}
	id, err := eval.Identify(s, []*eval.SearchRun{{
		Name: "ours", Mated: [][]eval.Candidate{{{InGallery: true, First: true, Score: 0.8}, {InGallery: true, Score: 0.1}}}, Others: [][]float64{{0.2, 0.4}},
	}}, o)
	if err != nil {
		t.Fatal(err)
	}
	list := []eval.Presentation{{ID: "x"}, {ID: "y"}, {ID: "z", Species: "print & paste"}, {ID: "u", Species: "mask"}}
	pad, err := eval.Attacks(list, []*eval.LivenessRun{{Name: "ours", Scores: []float64{0.9, 0.4, 0.6, 0.1}}}, []float64{0.5}, o)
	if err != nil {
		t.Fatal(err)
	}
	r.Sections = []eval.Section{
		{Name: "pairs", Title: p.Title, Verification: v, Notes: []string{"a note & more"}},
		{Name: "identify", Title: "open set", Identification: id},
		{Name: "liveness", Title: "attacks", Attack: pad},
	}
	return r
}

// TestGoldenJSON pins the format: a change that breaks readers needs another ReportFormat.
func TestGoldenJSON(t *testing.T) {
	r := sample(t)
	var b bytes.Buffer
	if err := JSON(&b, r); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "report.json")
	if *update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(golden, b.Bytes(), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if err := alike(b.Bytes(), want); err != nil {
		t.Errorf("%s: %v: if that is meant, run go test -update here, and think of readers", golden, err)
	}
	back, err := Read(bytes.NewReader(b.Bytes()))
	if err != nil || !reflect.DeepEqual(back, r) {
		t.Errorf("what was read is not what was written: %v", err)
	}
	for _, text := range []string{"", "[]", `{"format":2}`, `{"format":1,"colour":1}`} {
		if _, err := Read(strings.NewReader(text)); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

// alike compares two JSON texts token by token; numbers may differ in the last digits, since processors round products
// and sums in one step or in two.
func alike(a, b []byte) error {
	da, db := json.NewDecoder(bytes.NewReader(a)), json.NewDecoder(bytes.NewReader(b))
	for {
		ta, errA := da.Token()
		tb, errB := db.Token()
		if errors.Is(errA, io.EOF) && errors.Is(errB, io.EOF) {
			return nil
		}
		x, ok := ta.(float64)
		if y, too := tb.(float64); ok && too && math.Abs(x-y) <= 1e-9*math.Max(1, math.Abs(x)) {
			continue
		}
		if errA != nil || errB != nil || ta != tb {
			return fmt.Errorf("at byte %d: %v, want %v (%v, %v)", da.InputOffset(), ta, tb, errA, errB)
		}
	}
}

func TestThePageStandsAlone(t *testing.T) {
	var b bytes.Buffer
	if err := HTML(&b, sample(t)); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	outside := regexp.MustCompile(`(?i)<script|<link|<img|<iframe|@import|url\(|(src|href)="[^#]`)
	if found := outside.FindString(page); found != "" {
		t.Errorf("the page refers to something outside: %s", found)
	}
	for _, want := range []string{"Test &lt;report&gt;", "c&lt;i&gt;/1", "system &lt;1&gt;", "print &amp; paste", "a note &amp; more", "theirs − ours", "prefers-color-scheme:dark", "@media print", "12.5 ms", "Failure to acquire"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if n := strings.Count(page, "<svg"); n != 4+3+2 {
		t.Errorf("%d charts on the page", n)
	}
	for _, bad := range []string{"NaN", "Inf", "<no value>", "%!"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page shows %q", bad)
		}
	}
	var again bytes.Buffer
	if err := HTML(&again, sample(t)); err != nil || !bytes.Equal(again.Bytes(), b.Bytes()) {
		t.Error("the same report gives another page")
	}
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	names, err := Write(dir, sample(t))
	if err != nil {
		t.Fatal(err)
	}
	found, _ := os.ReadDir(dir)
	if len(found) != len(names) || len(names) != 2+2*9 || !slices.Contains(names, "pairs-scores-ours.png") {
		t.Errorf("%d files, named %v", len(found), names)
	}
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		switch filepath.Ext(name) {
		case ".svg":
			d := xml.NewDecoder(bytes.NewReader(data))
			for {
				_, err := d.Token()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
		case ".png":
			im, err := png.Decode(bytes.NewReader(data))
			if err != nil || im.Bounds().Dx() != 2*width || im.Bounds().Dy() != 2*height {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if _, err := Write(filepath.Join(dir, PageName), sample(t)); err == nil {
		t.Error("a report was written into a file")
	}
}

func TestClip(t *testing.T) {
	for _, c := range []struct {
		a, b, from, to point
		ok             bool
	}{
		{point{0.1, 0.2}, point{0.3, 0.4}, point{0.1, 0.2}, point{0.3, 0.4}, true},
		{point{-1, 0.5}, point{2, 0.5}, point{0, 0.5}, point{1, 0.5}, true},
		{point{0.5, 2}, point{0.5, 0}, point{0.5, 1}, point{0.5, 0}, true},
		{point{-1, 2}, point{2, 2}, point{}, point{}, false},
		{point{-1, 0.5}, point{0.5, 2}, point{}, point{}, false}, // passes the corner
	} {
		from, to, ok := clip(c.a, c.b)
		if ok != c.ok || ok && (from != c.from || to != c.to) {
			t.Errorf("%v to %v: %v to %v, %v", c.a, c.b, from, to, ok)
		}
	}
}

func TestAxes(t *testing.T) {
	if p := probit(0.975); math.Abs(p-1.959964) > 1e-6 {
		t.Errorf("normal deviate of 0.975 is %v", p)
	}
	for _, c := range []struct {
		a    axis
		want string
	}{
		{detAxis("", 0.0007, 0.3), "0.01 % 0.1 % 1 % 2 % 5 % 10 % 20 % 40 %"},
		{detAxis("", 0.2, 0.55), "1 % 2 % 5 % 10 % 20 % 40 % 60 %"},
		{linearAxis("", -0.3, 1, label), "-0.2 0 0.2 0.4 0.6 0.8 1"},
		{linearAxis("", 0, 290, label), "0 50 100 150 200 250"},
		{linearAxis("", 3, 3, label), "3 3.2 3.4 3.6 3.8 4"},
		{logAxis("", 0.001, 1, rateLabel), "0.1 % 1 % 10 % 100 %"},
	} {
		var got []string
		for _, k := range c.a.ticks {
			if p := c.a.pos(k.at); p < -1e-9 || p > 1+1e-9 {
				t.Errorf("tick %v lies at %v", k, p)
			}
			got = append(got, k.label)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s, want %s", strings.Join(got, " "), c.want)
		}
	}
}

func label(v float64) string { return strings.TrimSuffix(fmt.Sprintf("%.4g", v), ".0") }

func TestPercent(t *testing.T) {
	for v, want := range map[float64]string{0: "0 %", 1: "100.00 %", 0.0123: "1.23 %", 0.00052: "0.052 %", 0.0000123: "0.0012 %", -0.5: "-50.00 %"} {
		if got := percent(v); got != want {
			t.Errorf("%v is %s, want %s", v, got, want)
		}
	}
}
