package infer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"
)

// ErrTar is wrapped by every refusal of a tar file.
var ErrTar = errors.New("not the tar of a bundle")

// maxTarEntries bounds the entries of a tar: files, and the folder itself.
const maxTarEntries = MaxFiles + 8

// OpenTar reads the table of a tar file of size bytes and returns its files as a file system of one folder, to be passed
// to FromDir. Nothing is unpacked: files are read from r where they lie, so r must stay open and unchanged. Allowed are
// plain files at the root ("./" in front is fine) and the root itself; links, devices, folders, sparse files, repeated
// names and names that lead elsewhere are refused with an error that wraps ErrTar and names the entry. The files' content
// is not looked at: FromDir checks it against the manifest.
func OpenTar(r io.ReaderAt, size int64) (fs.FS, error) {
	src := io.NewSectionReader(r, 0, size)
	t := tar.NewReader(src)
	dir := tarDir{}
	for n := 0; ; n++ {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF) && n == 0:
			return nil, fmt.Errorf("%w: it is empty", ErrTar)
		case errors.Is(err, io.EOF):
			return dir, nil
		case err != nil:
			return nil, fmt.Errorf("%w: %w: pack it with `tar -C DIR -cf FILE .`, without compression", ErrTar, err)
		case n == maxTarEntries:
			return nil, fmt.Errorf("%w: over %d entries", ErrTar, maxTarEntries)
		}
		if h.Typeflag == tar.TypeDir && path.Clean(h.Name) == "." {
			continue
		}
		name, err := tarName(h)
		if err != nil {
			return nil, fmt.Errorf("%w: entry %q: %w", ErrTar, h.Name, err)
		}
		if _, ok := dir[name]; ok {
			return nil, fmt.Errorf("%w: entry %q is there twice", ErrTar, h.Name)
		}
		at, err := src.Seek(0, io.SeekCurrent) // package tar reads headers in whole blocks and no further
		if err != nil {
			return nil, err
		}
		if h.Size > size-at {
			return nil, fmt.Errorf("%w: entry %q ends behind the file", ErrTar, h.Name)
		}
		dir[name] = io.NewSectionReader(r, at, h.Size)
	}
}

// tarName checks one entry and returns the name of its file.
func tarName(h *tar.Header) (string, error) {
	sparse := h.Typeflag == tar.TypeGNUSparse
	for key := range h.PAXRecords {
		sparse = sparse || strings.HasPrefix(key, "GNU.sparse.")
	}
	name := strings.TrimPrefix(h.Name, "./")
	switch {
	case sparse:
		return "", errors.New("sparse files are not taken")
	case h.Typeflag != tar.TypeReg:
		return "", errors.New("only plain files are taken, no links, folders or devices")
	case name != ManifestName && !filePattern.MatchString(name):
		return "", errors.New("only plain names at the root are taken")
	case h.Size < 0 || h.Size > MaxModelBytes:
		return "", fmt.Errorf("%d bytes: at most %d", h.Size, MaxModelBytes)
	}
	return name, nil
}

// tarDir is the one folder of a tar.
type tarDir map[string]*io.SectionReader

// Open implements fs.FS for files; there is nothing to list.
func (d tarDir) Open(name string) (fs.File, error) {
	r, ok := d[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &tarFile{io.NewSectionReader(r, 0, r.Size()), name}, nil
}

// tarFile implements fs.File and fs.FileInfo.
type tarFile struct {
	*io.SectionReader
	name string
}

func (f *tarFile) Stat() (fs.FileInfo, error) { return f, nil }
func (f *tarFile) Close() error               { return nil }
func (f *tarFile) Name() string               { return f.name }
func (f *tarFile) Mode() fs.FileMode          { return 0o400 }
func (f *tarFile) ModTime() time.Time         { return time.Time{} }
func (f *tarFile) IsDir() bool                { return false }
func (f *tarFile) Sys() any                   { return nil }

// WriteTar writes a bundle as a tar that OpenTar reads: manifest (the text of bundle.json) first, then the files by
// name, in clear. The bytes depend on the bundle only. Weights are held one file at a time.
func WriteTar(w io.Writer, manifest []byte, m *Model) error {
	t := tar.NewWriter(w)
	write := func(name string, data []byte) error {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: int64(len(data))}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		_, err := t.Write(data)
		return err
	}
	if err := write(ManifestName, manifest); err != nil {
		return err
	}
	for _, name := range m.Manifest.FileNames() {
		weights, err := m.Open(name)
		if err != nil {
			return err
		}
		if err := errors.Join(write(name, weights.Bytes()), weights.Close()); err != nil {
			return err
		}
	}
	return t.Close()
}
