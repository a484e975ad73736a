// Package session keeps what a sensor saw, with its timing, so that a trouble in the field can be played again bit for bit.
//
// Promises: every plane, format, stride, sequence number and distance in time of a frame comes back as it was written. A
// session says who consented to it and when it expires; without the first it cannot be written, and what has expired is
// neither opened nor played on. Everything but the header is encrypted, and the header is bound to it: a changed consent or
// expiry, and frames that are exchanged, reordered, repeated or cut out, are errors. Of a file that was cut off all whole
// frames before the cut are read; then comes io.ErrUnexpectedEOF, where a session that was finished gives io.EOF.
//
// It owns the files that it is given, and the key of the session, which it overwrites at Close. How that key is kept is the
// caller's (Keeper); a file is worth nothing without it. Writer and Source are used by one goroutine at a time; Close of a
// Source may come from another. It does not erase files that have expired.
//
// # Format, version 1
//
// Numbers are little-endian.
//
//	"VIGILSES"  u32 version, 1   u32 bytes of the header   header: JSON of Header, with the wrapped key
//	then segments: u32 bytes of ciphertext, ciphertext
//
// A segment is AES-256-GCM under the session's key, its nonce the segment's number (96 bits, big-endian, from 0; a key is
// used for one file), its additional data the SHA-256 of all before the first segment. Its plaintext begins with a byte: 1 is
// a frame, 0 the end, which is followed by u64, the number of frames.
//
//	frame   1  u64  sequence number       9  i64  time of capture, nanoseconds since 1970
//	       17  i64  nanoseconds since the first frame, by the monotonic clock
//	       25  u32  width   29  u32  height   33  u32  format (sensors.Format)   37  u32  flags: 1 full range
//	       41  u32  stride, u32 bytes of plane 0   49  likewise of plane 1   57  the planes' bytes
package session
