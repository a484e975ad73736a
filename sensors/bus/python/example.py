#!/usr/bin/env python3
"""Shows how bright a sensor's pictures are: example.py SOCKET SENSOR [FRAMES]"""

import sys

from vigil_bus import Ring


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    left = int(sys.argv[3]) if len(sys.argv) == 4 else -1
    with Ring.connect(sys.argv[1], sys.argv[2]) as ring:
        for frame in ring.frames():
            mean = frame.planes[0].mean()
            if frame.whole():
                print(f"{frame.sequence} {frame.format} {frame.width} x {frame.height} mean {mean:.1f} missed {ring.missed}", flush=True)
            left -= 1
            if left == 0:
                return


if __name__ == "__main__":
    main()
