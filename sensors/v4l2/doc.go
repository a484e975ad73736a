// Package v4l2 is the sensor driver for cameras, as Linux gives them: Video4Linux2 by ioctl, no library between.
//
// Promises: frames are not copied. A Frame's planes point into the buffers that the driver fills (MMAP, single- and
// multi-planar), and its Release gives the buffer back; DMABuf exports a held one for a GPU. The driver is never starved:
// at least two buffers stay with it, and while holders keep the others, new frames are let go and counted. A frame has the
// driver's own monotonic time stamp, and a gap in Seq is a gap in the driver's sequence; Stats tells those that the driver
// made by itself from those for which it may have had no buffer. A damaged, short or empty buffer is a
// *sensors.SkippedError, never a frame.
//
// Everything that keeps a camera from delivering is a *StateError with a named State: unplugged, busy, swapped, fake,
// refused, denied, unsuited, stalled (it does not answer, or gives no frame), failed. All of them are sensors.ErrUnplugged: each is
// returned once, and the calls behind it wait and
// try again, sooner when the kernel tells of a device (netlink uevents), until the camera delivers. A stream that breaks
// (EIO, no frame in time, format change) is restarted silently and counted; after three restarts without a frame it is
// stalled. Which node is the camera is decided by its Pin: the place where it is plugged in, USB ids, serial number, name. One
// that looks right at the wrong place is a fake, one that is wrong at the right place is swapped; both are ErrRefused.
//
// Next blocks on poll and notices Close and its context within 100 ms. A Source owns a descriptor of the device, a netlink
// socket, and the mappings, which outlive Close for frames that are still held. It starts no goroutine.
//
// It does not decode MJPEG (sensors/picture does, on the consumer's side), convert pixels, or choose among frames: wrap a
// Source in sensors.Newest for that.
package v4l2
