"""Reads the frames of Vigil's sensors where they lie: Python's standard library and NumPy, nothing to build.

    with Ring.connect("/run/vigil/bus.sock", "door") as ring:
        for frame in ring.frames():
            mean = frame.planes[0].mean()      # a view of the shared pages, not a copy
            if frame.whole():                  # not written again meanwhile
                print(frame.sequence, mean)

A frame is borrowed: the daemon writes its slot again when the ring has gone round, and waits for nobody. Ask whole() after
the last look at the pixels, and throw away what was computed if it says no. The layout is documented in the Go package
vigil/sensors/bus. On a clean end of the daemon frames() ends; after a crash it waits, unless it is given a timeout.
"""

import array
import mmap
import os
import socket
import struct
import time

import numpy as np

MAGIC, VERSION = b"VIGILBUS", 1
FORMATS = {1: "Gray8", 2: "RGB24", 3: "NV12", 4: "YUYV", 5: "MJPEG"}
_HEAD, _TOO_LARGE, _CLOSED, _PLANES, _PLANE_BYTES = 128, 136, 144, 64, 32


class BusError(Exception):
    """The daemon refused, or what it gave is not a ring of a version that this file reads."""


class Frame:
    """One frame in its slot. planes are read-only uint8 arrays over the shared memory: (height, width) or (height, width,
    channels), for MJPEG (bytes,). arrow is, for each plane, a view of the same memory that pyarrow.ipc.read_tensor takes."""

    __slots__ = ("_ring", "_slot", "ticket", "sequence", "wall_ns", "monotonic_ns", "width", "height", "format",
                 "full_range", "planes", "arrow")

    def __init__(self, ring, slot, ticket):
        self._ring, self._slot, self.ticket = ring, slot, ticket
        (self.sequence, self.wall_ns, self.monotonic_ns, self.width, self.height, kind, flags, count) = struct.unpack_from(
            "<QqqIIIII", ring._map, slot + 8)
        self.format, self.full_range = FORMATS.get(kind, "unknown"), bool(flags & 1)
        self.planes, self.arrow = [], []
        for i in range(min(count, 2)):
            message, pixels, size, stride, rows = struct.unpack_from("<QQQII", ring._map, slot + _PLANES + i * _PLANE_BYTES)
            self.planes.append(self._plane(i, slot + pixels, size, stride, rows))
            self.arrow.append(ring._view[slot + message:slot + pixels + size])

    def _plane(self, i, offset, size, stride, rows):
        if self.format == "MJPEG":
            shape, strides = (size,), (1,)
        elif self.format == "NV12" and i == 1:
            shape, strides = (rows, self.width // 2, 2), (stride, 2, 1)
        elif self.format in ("RGB24", "YUYV"):
            n = 3 if self.format == "RGB24" else 2
            shape, strides = (rows, self.width, n), (stride, n, 1)
        else:
            shape, strides = (rows, self.width), (stride, 1)
        return np.ndarray(shape, np.uint8, self._ring._map, offset, strides)

    def whole(self):
        """Whether everything that was read so far was this frame."""
        return self._ring._word(self._slot) == 2 * self.ticket and self._ring.head < self.ticket + self._ring.slots - 1


class Ring:
    """The frames of one sensor. Owns the mapping; close() lets go of it when no frame is left."""

    def __init__(self, fd):
        size = os.fstat(fd).st_size
        self._map = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
        self._view = memoryview(self._map)
        magic, version, header, self.slots, self.frame_bytes, self._stride, name = struct.unpack_from("<8sIIIIQI", self._map, 0)
        if magic != MAGIC or version != VERSION or header + self.slots * self._stride > size:
            raise BusError("this is no ring of version %d" % VERSION)
        self._header, self.sensor = header, self._map[36:36 + name].decode()
        self.missed = 0  # frames that were written over before they were looked at

    @classmethod
    def connect(cls, path, sensor, timeout_s=2.0):
        """Asks the daemon for a sensor's ring. The connection is over when this returns."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(timeout_s)
            s.connect(path)
            s.sendall(b"vigil-bus/1 " + sensor.encode() + b"\n")
            data, ancillary, _, _ = s.recvmsg(256, socket.CMSG_SPACE(4))
        fds = array.array("i")
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[:len(payload) - len(payload) % fds.itemsize])
        if not data.startswith(b"ok") or len(fds) != 1:
            raise BusError(data.decode(errors="replace").strip() or "refused: this process is not on the list (bus.readers)")
        try:
            return cls(fds[0])
        finally:
            os.close(fds[0])

    def _word(self, offset):
        return struct.unpack_from("<Q", self._map, offset)[0]

    @property
    def head(self):
        """Number of frames published so far; the ticket of the newest."""
        return self._word(_HEAD)

    @property
    def too_large(self):
        """Frames that the daemon left out because they do not fit into a slot."""
        return self._word(_TOO_LARGE)

    @property
    def closed(self):
        """Whether the daemon has ended the ring."""
        return self._word(_CLOSED) == 1

    def frame(self, ticket):
        """The frame with a ticket, or None if it is gone or not there yet."""
        slot = self._header + (ticket - 1) % self.slots * self._stride
        if ticket < 1 or self._word(slot) != 2 * ticket:
            return None
        f = Frame(self, slot, ticket)
        return f if f.whole() else None

    def frames(self, newest=False, timeout_s=None, poll_s=0.0005):
        """Yields every frame there is time for, the oldest that is safe to look at first; newest=True skips to the newest
        instead. Ends when the daemon closes the ring, or when nothing came for timeout_s."""
        ticket, since = max(1, self.head - self.slots + 3), time.monotonic()
        while True:
            head = self.head
            if head < ticket:
                if self.closed or timeout_s is not None and time.monotonic() - since > timeout_s:
                    return
                time.sleep(poll_s)
                continue
            start = head if newest else max(ticket, head - self.slots + 3)  # the oldest ones are about to be written over
            f = self.frame(start)
            self.missed += start - ticket + (f is None)
            ticket, since = start + 1, time.monotonic()
            if f is not None:
                yield f

    def close(self):
        """Lets go of the mapping; views of frames keep it alive until they go."""
        try:
            self._view.release()
            self._map.close()
        except BufferError:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
