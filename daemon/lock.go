package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// lockState takes the state folder for the one daemon that may run on it, until release or the end of the process.
// Provisioning takes the same lock. It does not wait.
func lockState(dir string) (release func() error, err error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot run: there is no state folder %s: provision the device first: `vigild provision`", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot run: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errors.Join(fmt.Errorf("cannot run: another vigild runs on %s: stop it first", dir), f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot lock %s: %w", dir, err), f.Close())
	}
	return f.Close, nil
}
