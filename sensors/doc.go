// Package sensors defines what every sensor gives: frames, and the source that hands them out.
//
// Promises: a Frame is borrowed, never copied. Its planes point into memory that its Pool (or a driver) owns; the frame
// is counted, and the memory goes back when the last holder calls Release. A Source is used by one goroutine at a time;
// Next blocks until there is a frame, the context ends, or the source fails, and Close may be called from another
// goroutine to wake it. A camera keeps only the newest frame (see Newest, which counts what it lets go); a fingerprint
// reader loses none. A device that was unplugged is the error ErrUnplugged from Next, not an end: call Next again and the
// source comes back when the device does. io.EOF is the end of a recording.
//
// It does not decode faces or fingers, convert pixels, or talk to any device: drivers are the folders below.
package sensors
