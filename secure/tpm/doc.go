// Package tpm talks to one TPM 2.0: it seals and opens the root secret, keeps
// the device's signing key, and lets no secret cross in clear.
//
// A TPM is one connection, to the kernel's resource manager (/dev/tpmrm0) or to
// the UNIX socket of swtpm, the software TPM for development. There is no
// software fall-back: without a TPM, Open fails with ErrNoTPM and says how to
// start swtpm. Operations are serialised by a mutex; each command has a bounded
// time, after which the connection is given up (ErrGone) because a late answer
// would be taken for the next one's.
//
// The storage root key (SRK) is the ECC P-256 primary of the TCG template in the
// owner hierarchy. CreateSRK returns its public area and name for the caller to
// keep ("pin"); it is made persistent at 0x81000001, the handle that the TCG
// provisioning guidance reserves for it, so that a later owner password does not
// lock the device out. When another key occupies that handle it is left alone,
// and the SRK is derived again by each UseSRK.
//
// What travels: every session is salted to the pinned SRK, not to what the TPM
// answers at the moment, so somebody on the bus who answers in the TPM's place
// cannot derive the session key. Secrets go in and out only as AES-128-CFB
// encrypted parameters, and a guard in front of the transport refuses to send a
// command that would carry one otherwise (ErrUnprotected). Error codes are not
// authenticated by TPM 2.0: an attacker on the bus can deny service, not more.
// Provisioning trusts the SRK it first sees, so it belongs in a trusted place.
//
// Ownership: the caller closes Signers and Buffers before the TPM. Resources
// inside the TPM: one transient object per open Signer, one more while a sealed
// object is open, and at most one session at a time. /dev/tpmrm0 isolates
// them per connection; on a raw socket Open flushes what a crashed process left.
//
// go-tpm keeps copies of command and response parameters on the Go heap while a
// command runs; those are not zeroed, the results handed to callers are in
// locked memory.
package tpm
