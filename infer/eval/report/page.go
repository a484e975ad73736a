package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"

	"vigil/infer/eval"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// page is what the template shows.
type page struct {
	Title, Created, Version, Confidence, JSONName string
	Seed                                          uint64
	ChartStyle                                    template.CSS
	Sections                                      []pageSection
	Reading                                       []string
}

type pageSection struct {
	Name, Title, Summary string
	Tables               []grid
	Charts               []template.HTML
	Lists                []list
	Notes                []string
}

// grid is a table with a name in the first column.
type grid struct {
	Title string
	Head  []string
	Rows  [][]cell
}

type cell struct {
	Text   string
	Bounds string
	Apart  bool // a difference whose bounds do not hold 0
}

// list is a short table without a head.
type list struct {
	Title string
	Rows  [][]cell
	Left  int // rows not shown
}

// HTML writes the page.
func HTML(w io.Writer, r *eval.Report) error {
	p := page{
		Title: r.Title, Created: r.Created, Version: r.Version, Seed: r.Seed, JSONName: JSONName,
		Confidence: fmt.Sprintf("%.0f %%", r.Confidence*100), ChartStyle: template.CSS(chartStyle), Reading: reading(r),
	}
	for i := range r.Sections {
		s, err := newSection(&r.Sections[i])
		if err != nil {
			return err
		}
		p.Sections = append(p.Sections, s)
	}
	return pageTemplate.Execute(w, p)
}

func newSection(s *eval.Section) (pageSection, error) {
	out := pageSection{Name: s.Name, Title: s.Title, Notes: s.Notes}
	switch {
	case s.Verification != nil:
		verification(&out, s.Verification)
	case s.Identification != nil:
		identification(&out, s.Identification)
	case s.Attack != nil:
		attack(&out, s.Attack)
	}
	for _, c := range charts(s) {
		var b strings.Builder
		if err := c.svg(&b, false); err != nil {
			return out, err
		}
		out.Charts = append(out.Charts, template.HTML(b.String())) // our own, with every text escaped
	}
	return out, nil
}

// What the terms of a report mean.
const (
	boundsText = "Small figures are the bounds: percentiles of a bootstrap over subjects, each replicate drawing as many " +
		"subjects as there are, with replacement; a non-mated comparison counts once for each pair of draws of its two " +
		"subjects. “≤” and “≥” mark the rule of three, 3/n, where no error (or nothing but errors) was seen in n " +
		"comparisons: it takes them for independent, so the true bound is further away."
	failureText = "FTA and FTE are the shares of the samples that gave no template: nothing usable was found in the " +
		"sample, or nothing could be enrolled from it. A comparison that could not be made counts as a non-match in " +
		"every rate; with failures these are the generalised rates (FAR, FRR) of ISO/IEC 19795-1."
	matchText = "FMR and FNMR are false match and false non-match rate. FNMR at an FMR is taken at the lowest threshold " +
		"whose measured FMR is at most that; a star says that the protocol has fewer non-mated comparisons than one error " +
		"at that rate takes. EER is where straight lines between the operating points meet FMR = FNMR; read otherwise, it " +
		"is the mean of both at the score where they are closest, or the middle of the step that FVC take."
	differenceText = "A difference is to the first system, over the same draws of subjects; it is in bold type where its " +
		"bounds do not include 0."
	searchText = "FPIR is the share of strangers' searches that return anybody; FNIR the share of mated searches that do " +
		"not return the mate, in the first place and at or over the threshold. Each gallery holds the smaller ones. The " +
		"bootstrap draws the subjects of the probes; the gallery stays."
	attackText = "APCER is the share of attack presentations of a species that were taken for bona fide, BPCER the share of " +
		"bona fide presentations taken for an attack (ISO/IEC 30107-3), both of those that got a response. Their bootstrap " +
		"draws presentations, since the list names no subjects."
)

// reading explains the terms that the sections of the report use.
func reading(r *eval.Report) []string {
	var ver, ident, pad bool
	for _, s := range r.Sections {
		ver, ident, pad = ver || s.Verification != nil, ident || s.Identification != nil, pad || s.Attack != nil
	}
	out := []string{boundsText, failureText}
	if ver {
		out = append(out, matchText, differenceText)
	}
	if ident {
		out = append(out, searchText)
	}
	if pad {
		out = append(out, attackText)
	}
	return out
}

func estimateCell(e eval.Estimate) cell {
	c := cell{Text: percent(e.Value)}
	switch {
	case e.Method == eval.ByThree && e.Value == 0 && e.High != nil:
		c.Bounds = "≤ " + percent(*e.High)
	case e.Method == eval.ByThree && e.Low != nil:
		c.Bounds = "≥ " + percent(*e.Low)
	case e.Low != nil && e.High != nil:
		c.Bounds = percent(*e.Low) + " – " + percent(*e.High)
	}
	return c
}

func gapCell(g eval.Gap) cell {
	points := func(v float64) string { return strings.TrimSuffix(fmt.Sprintf("%+.2f", v*100), " %") }
	c := cell{Text: points(g.Value) + " points"}
	if g.Low != nil && g.High != nil {
		c.Bounds = points(*g.Low) + " – " + points(*g.High)
		c.Apart = *g.Low > 0 || *g.High < 0
	}
	return c
}

func text(format string, args ...any) cell { return cell{Text: fmt.Sprintf(format, args...)} }

func seconds(v float64) cell {
	if v == 0 {
		return cell{Text: "–"}
	}
	return text("%.1f ms", v*1e3)
}
