package main

import (
	"fmt"
	"io"
	"path/filepath"

	"vigil/infer/eval"
	"vigil/infer/eval/report"
)

// print writes the report for people: the most important rates of every section, with their bounds.
func (e *evaluation) print(w io.Writer) {
	for i, s := range e.report.Sections {
		if i > 0 {
			fmt.Fprintln(w)
		}
		switch {
		case s.Verification != nil:
			printVerification(w, s.Title, s.Verification)
		case s.Identification != nil:
			printIdentification(w, s.Title, s.Identification)
		case s.Attack != nil:
			printAttack(w, s.Title, s.Attack)
		}
	}
	fmt.Fprintf(w, "\nbounds    %.0f %%, bootstrap with seed %d; \"at most\" and \"at least\" are the rule of three\n",
		e.report.Confidence*100, e.report.Seed)
	if e.o.out != "" {
		fmt.Fprintf(w, "report    %s, and %d files more\n", filepath.Join(e.o.out, report.PageName), len(e.files)-1)
	}
}

// estimate writes a rate with its bounds.
func estimate(e eval.Estimate) string {
	switch {
	case e.Low == nil || e.High == nil:
		return fmt.Sprintf("%.2f %%", e.Value*100)
	case e.Method == eval.ByThree && e.Value == 0:
		return fmt.Sprintf("0 %% (at most %.2f)", *e.High*100)
	case e.Method == eval.ByThree:
		return fmt.Sprintf("100 %% (at least %.2f)", *e.Low*100)
	}
	return fmt.Sprintf("%.2f %% (%.2f to %.2f)", e.Value*100, *e.Low*100, *e.High*100)
}

func printVerification(w io.Writer, title string, v *eval.Verification) {
	fmt.Fprintf(w, "protocol  %s: %d mated and %d non-mated comparisons of %d samples of %d subjects\n",
		title, v.Mated, v.NonMated, v.Samples, v.Subjects)
	for _, r := range v.Runs {
		fmt.Fprintf(w, "%-8s  %s", r.Name, r.System)
		if r.Seconds > 0 {
			fmt.Fprintf(w, ", %.1f ms a sample", r.Seconds*1e3)
		}
		fmt.Fprintf(w, "; %d samples without a template, %d comparisons not made\n", len(r.Failures), r.Unscored)
		if r.Accuracy != nil {
			fmt.Fprintf(w, "          thresholds %.3f, each chosen on the other half\n", r.ChosenAt)
		}
	}
	head := []string{"RATE"}
	for _, r := range v.Runs {
		head = append(head, r.Name, "THRESHOLD")
	}
	for _, d := range v.Differences {
		head = append(head, d.Run+" - "+d.To)
	}
	table(w, head, verificationRows(v))
}

func verificationRows(v *eval.Verification) (rows [][]string) {
	add := func(label, name string, value func(r *eval.VerifyResult) (eval.Estimate, string)) {
		row := []string{label}
		for i := range v.Runs {
			e, at := value(&v.Runs[i])
			row = append(row, estimate(e), at)
		}
		for _, d := range v.Differences {
			g := d.Rates[name]
			text := fmt.Sprintf("%+.2f", g.Value*100)
			if g.Low != nil && g.High != nil {
				text += fmt.Sprintf(" (%+.2f to %+.2f)", *g.Low*100, *g.High*100)
			}
			row = append(row, text)
		}
		rows = append(rows, row)
	}
	if v.Runs[0].Accuracy != nil {
		add("accuracy", "accuracy", func(r *eval.VerifyResult) (eval.Estimate, string) { return *r.Accuracy, "" })
	}
	add("EER", "eer", func(r *eval.VerifyResult) (eval.Estimate, string) { return r.EER, fmt.Sprintf("%.3f", r.EERAt) })
	for i, x := range v.Runs[0].Rates {
		label := fmt.Sprintf("FNMR at FMR %.0e", x.Target)
		if !x.Measured {
			label += " (too few comparisons to measure)"
		}
		add(label, fmt.Sprintf("fnmr@%.0e", x.Target), func(r *eval.VerifyResult) (eval.Estimate, string) {
			return r.Rates[i].FNMR, fmt.Sprintf("%.3f", r.Rates[i].Threshold)
		})
	}
	add("FNMR at no false match", "fnmr@0", func(r *eval.VerifyResult) (eval.Estimate, string) {
		return r.ZeroFMR, fmt.Sprintf("%.3f", r.ZeroAt)
	})
	add("failure to acquire", "", func(r *eval.VerifyResult) (eval.Estimate, string) { return r.FTA, "" })
	add("failure to enrol", "", func(r *eval.VerifyResult) (eval.Estimate, string) { return r.FTE, "" })
	for i := range rows[len(rows)-2:] { // differences are not computed for these
		row := rows[len(rows)-2+i]
		for k := 1 + 2*len(v.Runs); k < len(row); k++ {
			row[k] = ""
		}
	}
	return rows
}

func printIdentification(w io.Writer, title string, v *eval.Identification) {
	fmt.Fprintf(w, "protocol  %s: %d subjects enrolled, %d mated and %d non-mated searches\n", title, v.Enrolled, v.Mated, v.NonMated)
	for _, r := range v.Runs {
		fmt.Fprintf(w, "%-8s  %s, %.1f ms a sample; %d samples without a template\n",
			r.Name, r.System, r.Seconds*1e3, len(r.Failures))
		head := []string{"GALLERY", "SEARCHES", "MATE FIRST"}
		for _, x := range r.Sizes[0].Rates {
			few := ""
			if !x.Measured {
				few = " (too few strangers)"
			}
			head = append(head, fmt.Sprintf("FNIR at FPIR %.1f %%%s", x.Target*100, few))
		}
		var rows [][]string
		for _, z := range r.Sizes {
			row := []string{fmt.Sprint(z.Subjects), fmt.Sprint(z.Probes), estimate(z.Rank1)}
			for _, x := range z.Rates {
				row = append(row, estimate(x.FNIR))
			}
			rows = append(rows, row)
		}
		table(w, head, rows)
	}
}

func printAttack(w io.Writer, title string, v *eval.Attack) {
	fmt.Fprintf(w, "protocol  %s: %d bona fide and %d attack presentations\n", title, v.BonaFide, v.Attacks)
	for _, r := range v.Runs {
		fmt.Fprintf(w, "%-8s  %s; no response to %.2f %% of the bona fide\n", r.Name, r.System, r.BPNRR*100)
		rows := [][]string{{fmt.Sprintf("BPCER at %.3g", r.Threshold), estimate(r.BPCER), ""}}
		for _, s := range r.Species {
			label := fmt.Sprintf("APCER of %s (%d) at %.3g", s.Name, s.Presentations, r.Threshold)
			rows = append(rows, []string{label, estimate(s.APCER), fmt.Sprintf("no response to %.2f %%", s.APNRR*100)})
		}
		for _, x := range r.At {
			label := fmt.Sprintf("BPCER at APCER %.0f %%", x.Target*100)
			rows = append(rows, []string{label, estimate(x.BPCER), fmt.Sprintf("at %.3g", x.Threshold)})
		}
		rows = append(rows, []string{"EER", fmt.Sprintf("%.2f %%", r.EER*100), fmt.Sprintf("at %.3g", r.EERAt)})
		table(w, []string{"RATE", "", ""}, rows)
	}
}
