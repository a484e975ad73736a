// Package bus lets other processes of this machine look at the frames of a sensor without a copy: a ring of slots in shared
// memory, which one writer fills and anybody who was let in maps read-only.
//
// Promises: the writer never waits for a reader and reads nothing that a reader could write; there is one copy, from the
// frame into its slot, and it is counted. A reader has the very pages that the writer wrote: what it does with them, or
// whether it lives, is no concern of the writer's. The memory cannot grow, shrink or be mapped writable by anybody else: the
// memfd carries F_SEAL_GROW, F_SEAL_SHRINK, F_SEAL_FUTURE_WRITE and F_SEAL_SEAL, and the descriptor that is passed on is
// open for reading where the system lets us open it again. A reader that is too slow notices that its slot was written
// again (a sequence lock, below) and goes on with a newer frame. A frame larger than a slot is left out and counted.
//
// It owns the shared memory, which is overwritten with zeroes at Close, and in Serve one goroutine and at most
// maxHandshakes more, each for handshakeTime at most. Publish blocks on nothing; one goroutine calls it at a time. It does
// not say who may look (the caller gives the users and groups), and the pages are not locked: a machine that swaps may
// write them to its swap.
//
// # Layout, version 1
//
// All numbers are little-endian, all offsets in bytes. The header is headerBytes (4096) long; then come the slots.
//
//	header   0  8  "VIGILBUS"
//	         8  u32  version, 1          12  u32  header bytes, 4096
//	        16  u32  slots               20  u32  largest number of bytes of a frame's planes
//	        24  u64  bytes from slot to slot, a multiple of 4096
//	        32  u32  bytes of the sensor's name       36  name, UTF-8, 64 bytes
//	       128  u64  head: frames published so far; the frame with ticket n, from 1, lies in slot (n-1) modulo slots
//	       136  u64  frames left out because they were too large
//	       144  u64  1: the writer has closed the ring, and the slots are empty
//
//	slot     0  u64  lock: 2n-1 while frame n is written, 2n when it is whole
//	         8  u64  sequence number of the sensor's frame: a gap is a frame lost before the bus
//	        16  i64  time of capture, nanoseconds since 1970 (UTC)
//	        24  i64  time of capture, nanoseconds of CLOCK_MONOTONIC
//	        32  u32  width   36  u32  height, pixels
//	        40  u32  format: 1 Gray8, 2 RGB24, 3 NV12, 4 YUYV, 5 MJPEG
//	        44  u32  flags: 1 the luminance spans 0..255
//	        48  u32  planes, 1 or 2
//	        64  plane 0     96  plane 1:
//	             0  u64  offset of the Arrow message, from the slot
//	             8  u64  offset of the pixels, from the slot; a multiple of 64
//	            16  u64  bytes of pixels    24  u32  stride, bytes    28  u32  rows
//
// In front of the pixels of each plane stands an encapsulated Arrow IPC message (continuation marker, metadata length,
// flatbuffer) with a Tensor header of uint8, whose body the pixels are: Arrow's readers take the address of the message as
// it is. Shapes: (height, width) for Gray8 and the first plane of NV12, (height/2, width/2, 2) for its second, (height,
// width, 3) for RGB24, (height, width, 2) for YUYV, (bytes) for MJPEG. Strides are those of the plane.
//
// # How to read
//
// Take head as n. Read the lock of n's slot; if it is not 2n, the frame is gone. Use the frame where it lies. Then read
// the lock again and head: the frame was whole if the lock is still 2n and head is less than n + slots - 1. The last leaves
// a slot between reader and writer, so that a processor that reorders the reads of an interpreted program does no harm.
//
// # The way in
//
// A UNIX stream socket. The reader sends "vigil-bus/1 SENSOR\n", at most 128 bytes, and receives one line: "ok\n" with the
// descriptor (SCM_RIGHTS), or "error REASON\n". Then the connection is closed. A peer that is not on the list is closed
// without a word.
package bus
