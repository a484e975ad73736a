// Package report writes an eval.Report for people and programs: one self-contained page (report.html), the same in JSON
// (report.json), and every chart of the page as SVG and PNG file (a build with the tag appliance writes no PNG).
//
// It promises that the page needs no script and no network, reads in light, dark and print, and holds ids, never
// pictures; that the same report gives the same bytes; and that files are replaced whole. It blocks on the disk only,
// owns nothing, and computes no rates: what it shows stands in the report.
package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"vigil/infer/eval"
)

// Names of the files beside the charts, which are called SECTION-CHART.svg and .png.
const (
	PageName = "report.html"
	JSONName = "report.json"
)

// Write writes the page, the JSON file and the charts into dir, which it makes. It returns the names of the files.
func Write(dir string, r *eval.Report) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var names []string
	put := func(name string, write func(io.Writer) error) error {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		names = append(names, name)
		return replace(filepath.Join(dir, name), b.Bytes())
	}
	if err := errors.Join(
		put(PageName, func(w io.Writer) error { return HTML(w, r) }),
		put(JSONName, func(w io.Writer) error { return JSON(w, r) }),
	); err != nil {
		return nil, err
	}
	for i := range r.Sections {
		for _, c := range charts(&r.Sections[i]) {
			if err := put(c.name+".svg", func(w io.Writer) error { return c.svg(w, true) }); err != nil {
				return nil, err
			}
			if !drawsPNG {
				continue
			}
			if err := put(c.name+".png", c.png); err != nil {
				return nil, err
			}
		}
	}
	return names, nil
}

// replace writes a file beside the old one and moves it into its place.
func replace(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".report-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// JSON writes the report with indentation.
func JSON(w io.Writer, r *eval.Report) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	return e.Encode(r)
}

// Read reads what JSON wrote. Another version of the format and unknown fields are refused.
func Read(in io.Reader) (*eval.Report, error) {
	var r eval.Report
	d := json.NewDecoder(in)
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("not a report: %w", err)
	}
	if r.Format != eval.ReportFormat {
		return nil, fmt.Errorf("report of format %d: this version reads format %d", r.Format, eval.ReportFormat)
	}
	return &r, nil
}

// percent writes a rate with as many digits as it carries.
func percent(v float64) string {
	switch p := math.Abs(v * 100); {
	case p == 0:
		return "0 %"
	case p < 0.00995:
		return fmt.Sprintf("%.2g %%", v*100)
	case p < 0.0995:
		return fmt.Sprintf("%.3f %%", v*100)
	}
	return fmt.Sprintf("%.2f %%", v*100)
}
