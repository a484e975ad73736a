package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// lockRetry is how often a held lock is tried again.
const lockRetry = 20 * time.Millisecond

// takeLock locks the file at path for this process until the returned file is
// closed, and writes the process id into it. It waits at most wait, then fails
// with ErrLocked.
func takeLock(path string, wait time.Duration) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock store: %w", err)
	}
	if err := flock(f, unix.LOCK_EX, wait); err != nil {
		err = lockError(f, path, err)
		f.Close()
		return nil, err
	}
	// The number is only a hint for the operator, so a full disk is no reason
	// not to start.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return f, nil
}

// flock waits for an advisory lock that ends with the file descriptor. It
// returns EWOULDBLOCK when wait is over.
func flock(f *os.File, how int, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		if time.Now().After(deadline) {
			return unix.EWOULDBLOCK
		}
		time.Sleep(lockRetry)
	}
}

func lockError(f *os.File, path string, err error) error {
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("cannot lock %s: %w", path, err)
	}
	holder := make([]byte, 16)
	n, _ := f.ReadAt(holder, 0)
	if pid, err := strconv.Atoi(string(bytes.TrimSpace(holder[:n]))); err == nil {
		return fmt.Errorf("cannot lock %s: process %d holds it; stop that vigild first: %w", path, pid, ErrLocked)
	}
	return fmt.Errorf("cannot lock %s: stop the other vigild first: %w", path, ErrLocked)
}
