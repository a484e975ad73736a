package report

import (
	"fmt"

	"vigil/infer/eval"
)

// shownRows bounds the lists on the page; the JSON file has all.
const shownRows = 10

func verification(out *pageSection, v *eval.Verification) {
	out.Summary = fmt.Sprintf("%d subjects, %d samples, %d mated and %d non-mated comparisons, %d replicates",
		v.Subjects, v.Samples, v.Mated, v.NonMated, v.Replicates)
	g := grid{Head: []string{"Rate"}}
	for _, r := range v.Runs {
		g.Head = append(g.Head, r.Name)
	}
	for _, d := range v.Differences {
		g.Head = append(g.Head, d.Run+" − "+d.To)
	}
	row := func(label, name string, value func(r *eval.VerifyResult) cell) {
		cells := []cell{{Text: label}}
		for i := range v.Runs {
			cells = append(cells, value(&v.Runs[i]))
		}
		for _, d := range v.Differences {
			if gap, ok := d.Rates[name]; ok {
				cells = append(cells, gapCell(gap))
			} else {
				cells = append(cells, cell{})
			}
		}
		g.Rows = append(g.Rows, cells)
	}
	rateRows(v, row)
	failureRows(v, row)
	out.Tables = append(out.Tables, g)
	for _, r := range v.Runs {
		out.Lists = append(out.Lists, failures(r.Name, r.Failures)...)
		out.Lists = append(out.Lists, pairs("Mated pairs with the lowest scores, "+r.Name, r.WorstMated),
			pairs("Non-mated pairs with the highest scores, "+r.Name, r.WorstOthers))
	}
}

// addRow appends a row with a cell per system; name is that of the paired difference, if there is one.
type addRow func(label, name string, value func(r *eval.VerifyResult) cell)

func rateRows(v *eval.Verification, row addRow) {
	row("EER", "eer", func(r *eval.VerifyResult) cell { return estimateCell(r.EER) })
	row("EER read otherwise, threshold", "", func(r *eval.VerifyResult) cell {
		c := text("%s at %.4g", percent(r.Nearest), r.EERAt)
		c.Bounds = fmt.Sprintf("FVC: %s (step %s – %s)", percent((r.FVCEER[0]+r.FVCEER[1])/2), percent(r.FVCEER[0]), percent(r.FVCEER[1]))
		return c
	})
	if v.Runs[0].Accuracy != nil {
		row("Accuracy, threshold chosen on the other half", "accuracy", func(r *eval.VerifyResult) cell { return estimateCell(*r.Accuracy) })
		row("Thresholds chosen", "", func(r *eval.VerifyResult) cell { return text("%.3f", r.ChosenAt) })
	}
	for i, x := range v.Runs[0].Rates {
		star := ""
		if !x.Measured {
			star = " *"
		}
		label := fmt.Sprintf("FNMR at FMR %s%s", rateLabel(x.Target), star)
		row(label, fmt.Sprintf("fnmr@%.0e", x.Target), func(r *eval.VerifyResult) cell { return estimateCell(r.Rates[i].FNMR) })
	}
	row("FNMR at no false match", "fnmr@0", func(r *eval.VerifyResult) cell { return estimateCell(r.ZeroFMR) })
	for i, x := range v.Runs[0].Rates {
		row(fmt.Sprintf("FMR and threshold for FMR %s", rateLabel(x.Target)), "", func(r *eval.VerifyResult) cell {
			c := estimateCell(r.Rates[i].FMR)
			c.Text += fmt.Sprintf(" at %.4g", r.Rates[i].Threshold)
			return c
		})
	}
}

func failureRows(v *eval.Verification, row addRow) {
	row("Failure to acquire (FTA)", "", func(r *eval.VerifyResult) cell { return estimateCell(r.FTA) })
	row("Failure to enrol (FTE)", "", func(r *eval.VerifyResult) cell { return estimateCell(r.FTE) })
	matching := false
	for _, r := range v.Runs {
		matching = matching || r.Matching != nil
	}
	if matching {
		row("Comparisons not made", "", func(r *eval.VerifyResult) cell { return text("%d", r.Unscored) })
		row("EER of the comparisons made", "", func(r *eval.VerifyResult) cell {
			if r.Matching == nil {
				return cell{Text: "the same"}
			}
			return text("%s", percent(r.Matching.EER))
		})
	}
	row("Quality: 5 %, median, 95 % of the samples", "", func(r *eval.VerifyResult) cell { return qualityCell(r.Quality) })
	row("Time for a sample", "", func(r *eval.VerifyResult) cell { return seconds(r.Seconds) })
	row("System", "", func(r *eval.VerifyResult) cell { return cell{Text: r.System} })
}

func qualityCell(q *eval.Quality) cell {
	if q == nil {
		return cell{Text: "–"}
	}
	return text("%.2f, %.2f, %.2f", q.P5, q.Median, q.P95)
}

func failures(run string, all []eval.Failure) []list {
	if len(all) == 0 {
		return nil
	}
	l := list{Title: "Samples without a template, " + run, Left: max(0, len(all)-shownRows)}
	for _, f := range all[:min(len(all), shownRows)] {
		l.Rows = append(l.Rows, []cell{{Text: f.ID}, {Text: f.Kind}})
	}
	return []list{l}
}

func pairs(title string, scored []eval.Scored) list {
	l := list{Title: title, Left: max(0, len(scored)-shownRows)}
	for _, s := range scored[:min(len(scored), shownRows)] {
		l.Rows = append(l.Rows, []cell{{Text: s.A + "  –  " + s.B}, text("%.4g", s.Score)})
	}
	return l
}

func identification(out *pageSection, v *eval.Identification) {
	out.Summary = fmt.Sprintf("%d subjects enrolled at most, %d mated and %d non-mated searches, %d replicates",
		v.Enrolled, v.Mated, v.NonMated, v.Replicates)
	for _, r := range v.Runs {
		g := grid{Title: r.Name, Head: []string{"Gallery size", "mated searches", "mate first"}}
		for _, x := range r.Sizes[0].Rates {
			star := ""
			if !x.Measured {
				star = " *"
			}
			g.Head = append(g.Head, fmt.Sprintf("FNIR at FPIR %s%s", rateLabel(x.Target), star))
		}
		for _, z := range r.Sizes {
			row := []cell{text("%d", z.Subjects), text("%d", z.Probes), estimateCell(z.Rank1)}
			for _, x := range z.Rates {
				row = append(row, estimateCell(x.FNIR))
			}
			g.Rows = append(g.Rows, row)
		}
		out.Tables = append(out.Tables, g)
		out.Lists = append(out.Lists, failures(r.Name, r.Failures)...)
	}
	out.Tables = append(out.Tables, searchSystems(v))
}

func searchSystems(v *eval.Identification) grid {
	g := grid{Title: "Systems", Head: []string{"", "FTA", "FTE", "quality: 5 %, median, 95 %", "time for a sample"}}
	for _, r := range v.Runs {
		name := cell{Text: r.Name, Bounds: r.System}
		g.Rows = append(g.Rows, []cell{name, estimateCell(r.FTA), estimateCell(r.FTE), qualityCell(r.Quality), seconds(r.Seconds)})
	}
	return g
}

func attack(out *pageSection, v *eval.Attack) {
	out.Summary = fmt.Sprintf("%d bona fide and %d attack presentations, %d replicates", v.BonaFide, v.Attacks, v.Replicates)
	g := grid{Head: []string{"Rate"}}
	for _, r := range v.Runs {
		g.Head = append(g.Head, r.Name)
	}
	row := func(label string, value func(r *eval.AttackResult) cell) {
		cells := []cell{{Text: label}}
		for i := range v.Runs {
			cells = append(cells, value(&v.Runs[i]))
		}
		g.Rows = append(g.Rows, cells)
	}
	row("Threshold", func(r *eval.AttackResult) cell { return text("%.4g", r.Threshold) })
	row("BPCER", func(r *eval.AttackResult) cell { return estimateCell(r.BPCER) })
	row("APCER, highest of the species", func(r *eval.AttackResult) cell { return text("%s", percent(r.APCER)) })
	for i, s := range v.Runs[0].Species {
		row(fmt.Sprintf("APCER of %s (%d)", s.Name, s.Presentations), func(r *eval.AttackResult) cell { return estimateCell(r.Species[i].APCER) })
	}
	for i, x := range v.Runs[0].At {
		row("BPCER at APCER "+rateLabel(x.Target), func(r *eval.AttackResult) cell { return estimateCell(r.At[i].BPCER) })
	}
	row("EER, threshold", func(r *eval.AttackResult) cell { return text("%s at %.4g", percent(r.EER), r.EERAt) })
	row("Non-response to bona fide presentations", func(r *eval.AttackResult) cell { return text("%s", percent(r.BPNRR)) })
	for i, s := range v.Runs[0].Species {
		row("Non-response to "+s.Name, func(r *eval.AttackResult) cell { return text("%s", percent(r.Species[i].APNRR)) })
	}
	row("Time for a presentation", func(r *eval.AttackResult) cell { return seconds(r.Seconds) })
	row("System", func(r *eval.AttackResult) cell { return cell{Text: r.System} })
	out.Tables = append(out.Tables, g)
	for _, r := range v.Runs {
		out.Lists = append(out.Lists, failures(r.Name, r.Failures)...)
		out.Lists = append(out.Lists, presentations("Attacks with the highest scores, "+r.Name, r.Missed),
			presentations("Bona fide with the lowest scores, "+r.Name, r.Refused))
	}
}

func presentations(title string, scored []eval.Presented) list {
	l := list{Title: title, Left: max(0, len(scored)-shownRows)}
	for _, s := range scored[:min(len(scored), shownRows)] {
		l.Rows = append(l.Rows, []cell{{Text: s.ID}, text("%.4g", s.Score)})
	}
	return l
}
