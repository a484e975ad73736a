package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"vigil/daemon/api"
	"vigil/sensors/picture"
)

// readPicture reads a picture file of bounded size; "-" is standard input. A file that is no picture is an error that
// names it.
func (a *app) readPicture(path string) ([]byte, error) {
	in := a.env.Stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("cannot read the picture: %w", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, picture.MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the picture %s: %w", path, err)
	}
	if err := picture.Check(data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return data, nil
}

// aboutPicture are the codes of problems with the content of a picture.
var aboutPicture = []string{"no_face", "no_finger", "picture_unfit", "several_faces", "picture_format", "picture_too_large", "picture_empty", "picture_broken"}

// ofPicture adds the name of the file to a problem with its content.
func ofPicture(path string, err error) error {
	var p *api.Problem
	if errors.As(err, &p) && slices.Contains(aboutPicture, p.Code) {
		return fmt.Errorf("%s: %w", path, err)
	}
	return err
}

// hint adds a remedy to a problem of one of the codes.
func hint(err error, remedy string, codes ...string) error {
	var p *api.Problem
	if errors.As(err, &p) && slices.Contains(codes, p.Code) {
		return fmt.Errorf("%w: %s", err, remedy)
	}
	return err
}
