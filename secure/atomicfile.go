package secure

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFileAtomic replaces the file at path by one that holds data, with
// exactly the permissions perm. It writes a temporary file in the same folder,
// syncs it, renames it over path and syncs the folder: after a crash at any
// moment path holds the old or the new content in full, and once the call has
// returned without error it holds the new one. On error path is unchanged,
// unless only the last sync failed, and the temporary file is gone. A crash can
// leave a ".tmp-" file behind; it is never read.
func WriteFileAtomic(path string, data []byte, perm fs.FileMode) (err error) {
	dir, name := filepath.Split(filepath.Clean(path))
	if dir == "" {
		dir = "."
	}
	// CreateTemp makes it 0600, so it is never wider open than asked for.
	f, err := os.CreateTemp(dir, ".tmp-"+name+"-")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("cannot write %s: %w", path, err)
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = errors.Join(f.Chmod(perm), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes renames and creations in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
