package mem

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Backend says what New uses on this machine: BackendSecret or BackendMlock.
func Backend() string {
	fd, err := unix.MemfdSecret(unix.O_CLOEXEC)
	if err != nil {
		return BackendMlock
	}
	unix.Close(fd)
	return BackendSecret
}

// lockedPages maps sizeBytes (a multiple of the page size) of locked memory.
func lockedPages(sizeBytes int) ([]byte, error) {
	fd, err := unix.MemfdSecret(unix.O_CLOEXEC)
	switch {
	case err == nil:
		defer unix.Close(fd)
		return secretPages(fd, sizeBytes)
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
		// The kernel has no memfd_secret, it is switched off
		// (secretmem.enable=0), or a system call filter hides it.
		return mlockPages(sizeBytes)
	default:
		return nil, fmt.Errorf("cannot open secret memory: %v", err)
	}
}

// secretPages maps a memfd_secret descriptor. The kernel accounts such pages as
// locked and keeps them out of core dumps by itself.
func secretPages(fd, sizeBytes int) ([]byte, error) {
	if err := unix.Ftruncate(fd, int64(sizeBytes)); err != nil {
		return nil, fmt.Errorf("cannot size secret memory to %d bytes: %v", sizeBytes, err)
	}
	mapping, err := unix.Mmap(fd, 0, sizeBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, lockError("map secret memory", sizeBytes, err)
	}
	return advise(mapping)
}

// mlockPages is the variant for kernels without memfd_secret.
func mlockPages(sizeBytes int) ([]byte, error) {
	mapping, err := unix.Mmap(-1, 0, sizeBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, lockError("map memory", sizeBytes, err)
	}
	if err := unix.Mlock(mapping); err != nil {
		unix.Munmap(mapping)
		return nil, lockError("lock memory", sizeBytes, err)
	}
	return advise(mapping)
}

// advise keeps the pages out of core dumps and of forked children.
func advise(mapping []byte) ([]byte, error) {
	for _, advice := range []int{unix.MADV_DONTDUMP, unix.MADV_DONTFORK} {
		if err := unix.Madvise(mapping, advice); err != nil {
			unix.Munmap(mapping)
			return nil, fmt.Errorf("cannot keep locked memory out of dumps and children (madvise %d): %v", advice, err)
		}
	}
	return mapping, nil
}

// lockError names the limit and the remedy when err is the kernel's way of
// saying that RLIMIT_MEMLOCK is too small.
func lockError(what string, sizeBytes int, err error) error {
	if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOMEM) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("cannot %s (%d bytes): %v", what, sizeBytes, err)
	}
	var limit unix.Rlimit
	now := "unknown"
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil {
		now = strconv.FormatUint(limit.Cur, 10) + " bytes"
	}
	return fmt.Errorf("cannot %s (%d bytes): %w: RLIMIT_MEMLOCK is %s; raise it with LimitMEMLOCK= in the systemd unit or with ulimit -l", what, sizeBytes, ErrLimit, now)
}
