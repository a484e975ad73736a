package eval

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// touch makes empty files below a new folder.
func touch(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, n := range names {
		path := filepath.Join(dir, filepath.FromSlash(n))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// said lists the comparisons of a protocol as "a-b".
func said(p *Protocol, mated bool) (out []string) {
	for _, c := range p.Comparisons {
		if c.Mated == mated {
			out = append(out, p.Samples[c.A].ID+"-"+p.Samples[c.B].ID)
		}
	}
	slices.Sort(out)
	return out
}

func TestFVC(t *testing.T) {
	dir := touch(t, "101_1.png", "101_2.png", "101_3.tif", "2_2.png", "2_4.png", "30_1.png", ".hidden")
	for _, c := range []struct {
		impostors Impostors
		non       string
	}{
		{FirstImpressions, "2_2-101_1 2_2-30_1 30_1-101_1"}, // the first of finger 2 is its impression 2
		{EveryImpression, "2_2-101_1 2_2-101_2 2_2-101_3 2_2-30_1 2_4-101_1 2_4-101_2 2_4-101_3 2_4-30_1 30_1-101_1 30_1-101_2 30_1-101_3"},
	} {
		p, err := FVC(dir, c.impostors)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(said(p, true), " "); got != "101_1-101_2 101_1-101_3 101_2-101_3 2_2-2_4" {
			t.Errorf("%s: mated %s", c.impostors, got)
		}
		if got := strings.Join(said(p, false), " "); got != c.non {
			t.Errorf("%s: non-mated %s, want %s", c.impostors, got, c.non)
		}
	}
	if _, err := FVC(dir, "some"); err == nil || !strings.Contains(err.Error(), `"first" and "all"`) {
		t.Errorf("impostors some: %v", err)
	}
	for name, files := range map[string][]string{
		"two files of one impression": {"1_1.png", "1_1.jpg"},
		"two spellings of one finger": {"1_1.png", "01_1.png"},
		"another file":                {"1_1.png", "readme.txt"},
		"no file":                     {},
		"one finger":                  {"1_1.png", "1_2.png"},
	} {
		if p, err := FVC(touch(t, files...), FirstImpressions); err == nil {
			t.Errorf("%s: %d comparisons", name, len(p.Comparisons))
		}
	}
}

func FuzzFVCNames(f *testing.F) {
	f.Add("101_1.png\n101_2.png\n102_1.tif")
	f.Add("1_1.png\n01_1.png")
	f.Add("999999_9999.abcdefgh")
	f.Fuzz(func(t *testing.T, names string) {
		list, err := fvcImpressions(strings.Split(names, "\n"))
		if err != nil {
			return
		}
		for i := 1; i < len(list); i++ {
			if a, b := list[i-1], list[i]; a.finger > b.finger || a.finger == b.finger && a.number >= b.number {
				t.Fatalf("%+v before %+v", a, b)
			}
		}
	})
}

func TestAllPairs(t *testing.T) {
	dir := touch(t, "ann/1.jpg", "ann/2.JPEG", "ann/notes.txt", "bob/1.png", "bob/.x.png", "eve/sub/1.png", ".git/a.png", "readme.md")
	p, err := AllPairs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if m, n := strings.Join(said(p, true), " "), strings.Join(said(p, false), " "); m != "ann/1-ann/2" || n != "ann/1-bob/1 ann/2-bob/1" {
		t.Errorf("mated %s, non-mated %s", m, n)
	}
	if _, err := AllPairs(touch(t, "ann/1.jpg", "ann/1.png")); err == nil || !strings.Contains(err.Error(), "ann/1") {
		t.Errorf("two pictures of one id: %v", err)
	}
	if _, err := AllPairs(touch(t, "1.jpg")); err == nil || !strings.Contains(err.Error(), "no pictures") {
		t.Errorf("no folders: %v", err)
	}
	if _, err := AllPairs(touch(t, "ann/1.jpg", "bob/1.jpg")); err == nil || !strings.Contains(err.Error(), "rates need both") {
		t.Errorf("no mated pair: %v", err)
	}
}

func TestParseLiveness(t *testing.T) {
	got, err := ParseLiveness(strings.NewReader("# a list\n\n a/1.jpg  bonafide\nb b.png\tattack\tprint out\r\nc.png attack mask\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Presentation{{"a/1.jpg", "a/1.jpg", ""}, {"b b.png", "b b.png", "print out"}, {"c.png", "c.png", "mask"}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	for _, c := range []struct{ name, text, want string }{
		{"empty", "# nothing\n", "empty"},
		{"one word", "a.jpg\n", "line 1"},
		{"another label", "a.jpg real\n", "line 1"},
		{"bona fide with a species", "a.jpg bonafide print\n", "line 1"},
		{"attack without one", "a.jpg bonafide\na.jpg attack\n", "line 2"},
		{"attack with an empty one", "a.jpg\tattack\t\n", "line 1"},
		{"outside", "../a.jpg bonafide\n", "inside the folder"},
		{"absolute", "/a.jpg bonafide\n", "inside the folder"},
		{"too long", strings.Repeat("a", 1<<17), "too long"},
	} {
		if p, err := ParseLiveness(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v, want %q", c.name, p, err, c.want)
		}
	}
}

func FuzzParseLiveness(f *testing.F) {
	f.Add([]byte("a/1.jpg bonafide\nb.png\tattack\tprint out\n# x\n"))
	f.Add([]byte("a.jpg attack mask"))
	f.Add([]byte("../a bonafide"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := ParseLiveness(bytes.NewReader(data))
		if (err == nil) != (len(list) > 0) {
			t.Fatalf("%d presentations beside %v", len(list), err)
		}
		for _, p := range list {
			if !filepath.IsLocal(filepath.FromSlash(p.Path)) {
				t.Fatalf("%q leaves the folder", p.Path)
			}
		}
	})
}

func TestScoresComeBack(t *testing.T) {
	p := lfw(t, protocol)
	run := &Run{Name: "r", Scores: []float64{0.25, NoScore, -3, 1e-9, 0, 400, 0.1, 0.2}}
	var b bytes.Buffer
	if err := WriteScores(&b, p, run); err != nil {
		t.Fatal(err)
	}
	back, err := ReadScores("r", p, strings.NewReader(strings.Replace(b.String(), "A/A_0001,A/A_0002", "A/A_0002.jpg,A/A_0001.JPG", 1)+"X/X_0001,Y/Y_0001,7\n"))
	if err != nil || !slices.Equal(back.Scores, run.Scores) {
		t.Errorf("%v, %v", back, err)
	}
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "line 1"},
		{"another head", "a,b,c\n", "line 1"},
		{"two fields", "a,b,score\nx,y\n", "line 2"},
		{"a word", "a,b,score\nx,y,z\n", "line 2"},
		{"infinite", "a,b,score\nx,y,+Inf\n", "line 2"},
		{"no number", "a,b,score\nx,y,NaN\n", "line 2"},
		{"two scores", "a,b,score\nx,y,1\ny,x,2\n", "line 3"},
		{"incomplete", "a,b,score\nA/A_0001,A/A_0002,1\n", "B/B_0001 with B/B_0003"},
	} {
		if _, err := ReadScores("r", p, strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func FuzzReadScores(f *testing.F) {
	f.Add([]byte("a,b,score\nx,y,1\nx,z,\n"))
	f.Add([]byte("a,b,score\n\"x,\ny\",z.png,-1e3\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		scores, err := parseScores(bytes.NewReader(data))
		if err != nil {
			return
		}
		for k, v := range scores {
			if k.a > k.b || math.IsNaN(v) || math.IsInf(v, 1) {
				t.Fatalf("%+v: %v", k, v)
			}
		}
	})
}

func TestReadPresentations(t *testing.T) {
	list := []Presentation{{"a", "a", ""}, {"b", "b", "print"}}
	r, err := ReadPresentations("r", list, strings.NewReader("path,score\nb,\na,0.5\n"))
	if err != nil || !slices.Equal(r.Scores, []float64{0.5, NoScore}) {
		t.Errorf("%+v, %v", r, err)
	}
	for _, text := range []string{"", "a,b\n", "path,score\na,1\n", "path,score\na,1\nb,x\n", "path,score\na,1\nb,2\na,1\n", "path,score\na,1,2\n"} {
		if _, err := ReadPresentations("r", list, strings.NewReader(text)); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

func FuzzReadPresentations(f *testing.F) {
	list := []Presentation{{"a", "a", ""}, {"b", "b", "print"}}
	f.Add([]byte("path,score\nb,\na,0.5\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ReadPresentations("r", list, bytes.NewReader(data))
		if err == nil && len(r.Scores) != len(list) {
			t.Fatalf("%d scores", len(r.Scores))
		}
	})
}

func TestNewSearch(t *testing.T) {
	var samples []Sample
	for s := range 40 {
		for i := range 1 + s%3 { // a third has one picture
			samples = append(samples, Sample{ID: fmt.Sprintf("s%02d/%d", s, i), Subject: fmt.Sprintf("s%02d", s)})
		}
	}
	x, err := NewSearch(samples, SearchOptions{Seed: 1, PerPerson: 1, Strangers: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	enrolled, probes := map[string]bool{}, 0
	for _, e := range x.Enrol {
		if len(e) != 1 || !strings.HasSuffix(samples[e[0]].ID, "/0") {
			t.Errorf("enrolled %v", e)
		}
		enrolled[samples[e[0]].Subject] = true
	}
	for _, p := range x.Mated {
		if samples[p.Sample].Subject != samples[x.Enrol[p.Enrol][0]].Subject || p.Sample == x.Enrol[p.Enrol][0] {
			t.Errorf("probe %+v", p)
		}
		probes++
	}
	for _, o := range x.Others {
		if enrolled[samples[o].Subject] {
			t.Errorf("%s is a stranger and enrolled", samples[o].ID)
		}
		probes++
	}
	if len(x.Enrol) != 20 || probes+len(x.Enrol) != len(samples) || !slices.Equal(x.Sizes, []int{10, 20}) {
		t.Errorf("%d enrolled, %d of %d samples used, sizes %v", len(x.Enrol), probes+len(x.Enrol), len(samples), x.Sizes)
	}
	again, _ := NewSearch(samples, SearchOptions{Seed: 1, PerPerson: 1, Strangers: 0.5})
	other, _ := NewSearch(samples, SearchOptions{Seed: 2, PerPerson: 1, Strangers: 0.5})
	if fmt.Sprint(again) != fmt.Sprint(x) || fmt.Sprint(other) == fmt.Sprint(x) {
		t.Error("the seed does not decide the draw")
	}
	if got := sizes(1200); !slices.Equal(got, []int{10, 20, 50, 100, 200, 500, 1000, 1200}) {
		t.Errorf("sizes %v", got)
	}
	for _, o := range []SearchOptions{{PerPerson: 0, Strangers: 0.5}, {PerPerson: 1, Strangers: 0}, {PerPerson: 1, Strangers: 1}, {PerPerson: 9, Strangers: 0.5}} {
		if _, err := NewSearch(samples, o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}
