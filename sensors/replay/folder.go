package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"vigil/sensors"
	"vigil/sensors/picture"
)

// folder plays the pictures of a directory in the order of their names.
type folder struct {
	names []string
	index int
}

func openFolder(path string) (*folder, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	f := &folder{}
	for _, e := range entries {
		switch strings.ToLower(filepath.Ext(e.Name())) {
		case ".jpg", ".jpeg", ".png":
			f.names = append(f.names, filepath.Join(path, e.Name()))
		}
	}
	if len(f.names) == 0 {
		return nil, fmt.Errorf("the folder holds no .jpg, .jpeg or .png")
	}
	slices.Sort(f.names)
	return f, nil
}

func (f *folder) next(ctx context.Context, pool *sensors.Pool) (*sensors.Frame, error) {
	if f.index >= len(f.names) {
		return nil, io.EOF
	}
	name := f.names[f.index]
	f.index++
	data, err := readBounded(name)
	if err != nil {
		return nil, &sensors.SkippedError{Name: name, Err: err}
	}
	return decode(ctx, pool, data, name)
}

// readBounded reads a file of at most picture.MaxBytes.
func readBounded(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, picture.MaxBytes+1))
}

// decode turns one compressed picture into a labelled frame; broken ones become a *sensors.SkippedError.
func decode(ctx context.Context, pool *sensors.Pool, data []byte, name string) (*sensors.Frame, error) {
	f, err := picture.Decode(ctx, pool, data)
	switch {
	case errors.Is(err, os.ErrClosed):
		return nil, err
	case err != nil:
		return nil, &sensors.SkippedError{Name: name, Err: err}
	}
	f.Label = name
	return f, nil
}

func (f *folder) rewind() error { f.index = 0; return nil }
func (f *folder) rate() float64 { return 0 }
func (f *folder) close() error  { return nil }
