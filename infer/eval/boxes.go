package eval

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"

	"vigil/infer/face"
	"vigil/sensors"
)

// Box is an annotated face, in pixels.
type Box struct {
	Top    float32 `xml:"top,attr"`
	Left   float32 `xml:"left,attr"`
	Width  float32 `xml:"width,attr"`
	Height float32 `xml:"height,attr"`
}

// Annotated is a picture with the faces that it shows.
type Annotated struct {
	File  string `xml:"file,attr"`
	Boxes []Box  `xml:"box"`
}

// maxAnnotated bounds the pictures of one file of annotations.
const maxAnnotated = 1_000_000

// ParseBoxes reads annotations in the layout of dlib's imglab (training.xml): images with the boxes of all their faces.
// File names are relative to the file and stay below its folder.
func ParseBoxes(r io.Reader) ([]Annotated, error) {
	var doc struct {
		Images []Annotated `xml:"images>image"`
	}
	d := xml.NewDecoder(r)
	d.CharsetReader = func(charset string, in io.Reader) (io.Reader, error) {
		if strings.EqualFold(charset, "ISO-8859-1") || strings.EqualFold(charset, "US-ASCII") {
			return in, nil // names beyond ASCII would not be found as files
		}
		return nil, fmt.Errorf("character set %q: save the file as UTF-8", charset)
	}
	if err := d.Decode(&doc); err != nil {
		return nil, fmt.Errorf("not annotations of dlib's imglab: %w", err)
	}
	if len(doc.Images) == 0 || len(doc.Images) > maxAnnotated {
		return nil, fmt.Errorf("%d pictures: 1 to %d are read", len(doc.Images), maxAnnotated)
	}
	for _, im := range doc.Images {
		if im.File == "" || !filepath.IsLocal(filepath.FromSlash(path.Clean(im.File))) {
			return nil, fmt.Errorf("picture %q: names are relative to the file and stay below its folder", im.File)
		}
		for _, b := range im.Boxes {
			if !(b.Width > 0 && b.Height > 0) {
				return nil, fmt.Errorf("picture %q: a box of %v by %v pixels", im.File, b.Width, b.Height)
			}
		}
	}
	return doc.Images, nil
}

// Detections is what a detector made of annotated pictures.
type Detections struct {
	Faces, Found int      // annotated, and of them found
	False        int      // detections that are no annotated face
	Missed       []string // "file: 12,34 of 56 pixels"
}

// Recall is the share of the annotated faces that were found.
func (d Detections) Recall() float64 { return float64(d.Found) / float64(max(1, d.Faces)) }

// Detect runs the detector on every picture. A face is found where a detection has its centre in the box and between half
// and twice its width.
func Detect(ctx context.Context, dir string, pictures []Annotated, pipe *face.Pipeline, decode func(context.Context, string) (*sensors.Frame, error)) (Detections, error) {
	var d Detections
	r := pipe.NewResult()
	for _, im := range pictures {
		f, err := decode(ctx, filepath.Join(dir, filepath.FromSlash(im.File)))
		if err != nil {
			return d, err
		}
		err = pipe.Process(ctx, f, r)
		f.Release()
		if err != nil {
			return d, fmt.Errorf("%s: %w", im.File, err)
		}
		hits := 0
		for _, b := range im.Boxes {
			if b.among(r.Faces) {
				hits++
			} else {
				d.Missed = append(d.Missed, fmt.Sprintf("%s: %v,%v of %v pixels", im.File, b.Left, b.Top, b.Width))
			}
		}
		d.Faces += len(im.Boxes)
		d.Found += hits
		d.False += max(0, r.Seen-hits)
	}
	r.Wipe()
	return d, nil
}

func (b Box) among(faces []face.Face) bool {
	for _, f := range faces {
		x, y := f.Box[0]+f.Box[2]/2, f.Box[1]+f.Box[3]/2
		if x > b.Left && y > b.Top && x < b.Left+b.Width && y < b.Top+b.Height && f.Box[2] < 2*b.Width && 2*f.Box[2] > b.Width {
			return true
		}
	}
	return false
}
