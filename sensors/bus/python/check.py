"""The reader's half of the Go test: reads frames, checks every byte against the pattern, and prints what it saw as JSON.
check.py SOCKET SENSOR FRAMES [slow]

Pattern: byte j of plane i of the sensor's frame n is (n * 31 + i * 7 + j) % 251, rows one after the other.
"""

import ctypes
import json
import mmap
import sys
import time

import numpy as np

from vigil_bus import Ring


def resident_private_kib():
    """Anonymous memory of this process: copies would lie there, the ring's pages do not (they count as RssShmem)."""
    out = {}
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith(("RssAnon", "RssShmem")):
                out[line.split(":")[0]] = int(line.split()[1])
    return out


def expected(frame, i, plane):
    j = np.arange(plane.size, dtype=np.int64)
    return ((frame.sequence * 31 + i * 7 + j) % 251).astype(np.uint8).reshape(plane.shape)


def writable(ring):
    """Whether there is any way to write to the ring's memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    address = np.ndarray((1,), np.uint8, ring._map).ctypes.data
    return libc.mprotect(ctypes.c_void_p(address), mmap.PAGESIZE, 3) == 0


def main():
    path, sensor, want, slow = sys.argv[1], sys.argv[2], int(sys.argv[3]), len(sys.argv) > 4
    ring = Ring.connect(path, sensor)
    base = np.ndarray((1,), np.uint8, ring._map).ctypes.data
    size = len(ring._map)
    seen = torn = wrong = outside = arrow = 0
    sequences, before, kept = [], None, []
    for frame in ring.frames(timeout_s=20):
        ok = all(np.array_equal(p, expected(frame, i, p)) for i, p in enumerate(frame.planes))
        inside = all(base <= p.ctypes.data < base + size and not p.flags.owndata and not p.flags.writeable for p in frame.planes)
        arrow += check_arrow(frame)
        if slow and seen > torn:
            time.sleep(0.3)  # long enough for the ring to go round
        if not frame.whole():
            torn += 1  # noticed, and thrown away
        else:
            seen, wrong, outside = seen + 1, wrong + (not ok), outside + (not inside)
            sequences.append(frame.sequence)
        if before is None:
            before = resident_private_kib()
        if seen >= want:
            break
    # Views of every slot that the ring has: kept alive, they cost no private memory.
    at_rest = resident_private_kib()
    for _ in range(64):
        kept += [f for t in range(max(1, ring.head - ring.slots + 3), ring.head + 1) for f in [ring.frame(t)] if f]
    after = resident_private_kib()
    print(json.dumps({
        "seen": seen, "torn": torn, "wrong": wrong, "outside": outside, "missed": ring.missed, "arrow": arrow,
        "ascending": all(a < b for a, b in zip(sequences, sequences[1:])), "first": sequences[:1], "last": sequences[-1:],
        "views": len(kept), "view_bytes": sum(p.nbytes for f in kept for p in f.planes),
        "anon_kib": after["RssAnon"] - at_rest["RssAnon"], "shmem_kib": after["RssShmem"], "writable": writable(ring),
    }))


def check_arrow(frame):
    """1 if pyarrow is there and sees the same bytes at the same address."""
    try:
        import pyarrow as pa
    except ImportError:
        return 0
    for plane, message in zip(frame.planes, frame.arrow):
        tensor = pa.ipc.read_tensor(pa.BufferReader(pa.py_buffer(message)))
        a = tensor.to_numpy()
        same = np.array_equal(a, plane) or not frame.whole()
        if tensor.shape != plane.shape or a.ctypes.data != plane.ctypes.data or a.strides != plane.strides or not same:
            raise SystemExit("Arrow sees another tensor: %s %s" % (tensor.shape, plane.shape))
    return 1


if __name__ == "__main__":
    main()
