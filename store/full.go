package store

import (
	"errors"
	"fmt"
	"strings"

	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// commitFailed gives a failed write its sentinel: ErrFull when the disk, the
// quota or the file size limit is the reason, else err as it is.
func commitFailed(path string, err error) error {
	if err == nil || !isFull(err) {
		return err
	}
	return fmt.Errorf("cannot write %s (%v); free space on its file system or raise the quota; nothing acknowledged was lost: %w", path, err, ErrFull)
}

// isFull says whether err is one of the ways to be out of space. bbolt flattens
// the error of growing its file to text, so that text is looked at too.
func isFull(err error) bool {
	for _, full := range []error{unix.ENOSPC, unix.EDQUOT, unix.EFBIG, berrors.ErrMaxSizeReached} {
		if errors.Is(err, full) || strings.Contains(err.Error(), full.Error()) {
			return true
		}
	}
	return false
}
