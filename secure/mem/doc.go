// Package mem holds secrets in memory that the kernel keeps out of swap, core
// dumps and child processes.
//
// A Buffer is a page-aligned mapping outside the Go heap, so the garbage
// collector neither copies nor scans it. New uses memfd_secret(2) where the
// kernel offers it (Linux 5.14 and later, pages are then also absent from the
// kernel's direct map), and otherwise an anonymous mapping with mlock(2). Both
// are marked MADV_DONTDUMP and MADV_DONTFORK. When the memory cannot be locked,
// New fails with ErrLimit: there is no unlocked fall-back.
//
// One owner closes a Buffer. Close zeroes it and unmaps it; slices taken from
// Bytes must not be used after that (the access faults). The package does no
// reference counting and has no finalizers: Live reports what is open, and a
// test that ends with more than it began with has a leak.
//
// What it does not promise: copies that callers make, copies that the standard
// library makes (an expanded AES key, an HMAC state) and CPU registers are
// outside its reach. A process with ptrace rights over this one can still read
// mlock pages.
package mem
