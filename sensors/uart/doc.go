// Package uart drives the optical fingerprint modules of the ZFM and R30x family (ZFM-20, ZFM-60, R305, R307, AS608 and
// their like) at a serial line, as their public data sheets describe them.
//
// Promises: every touch that the module caught becomes one Gray8 frame, or one *sensors.SkippedError that says why it was
// lost; a finger that stays on the glass makes no second frame. Damage on the line (noise, cut, altered, foreign or
// misplaced packets) is noticed, counted by kind (Source.Stats), and mended by asking again, a bounded number of times; the
// decoder finds the next packet behind anything. A picture is complete or it is not handed out: the protocol numbers no
// packets, so completeness is the count of bytes, and a picture that lost one packet and got another twice would pass.
// What is wrong has a name: ErrBaudRate, ErrSilent, ErrStuck, ErrPassword, ErrLifted, *LineError, and sensors.ErrUnplugged
// while the port is not there.
//
// Next blocks while nobody touches the reader, and for the transfer, which the line bounds: 36,864 bytes of picture are
// about 7.0 s at 57,600 baud and 3.5 s at 115,200. The module has one picture buffer and cannot look at the glass
// meanwhile: a touch that begins and ends during a transfer is not seen by anybody. A Source owns its port; it starts no
// goroutine. Close wakes Next.
//
// It uses neither the module's own templates nor its matcher, and does not judge pictures.
package uart
