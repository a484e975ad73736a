"""A control panel of libosdp, an independent implementation, on descriptor 3. Arguments: address, base key in hex or "-".
Prints "online", "secure" once there is a channel, and each card as "card BITS HEX"; ends with its standard input."""
import os
import select
import sys
import threading

import osdp


class Line(osdp.Channel):
    def read(self, max_bytes):
        ready, _, _ = select.select([3], [], [], 0)
        return os.read(3, max_bytes) if ready else b""

    def write(self, buf):
        return os.write(3, buf)

    def flush(self):
        pass


def say(*words):
    print(*words, flush=True)


def on_event(address, event):
    if event.get("event") == osdp.Event.CardRead:
        say("card", event.get("length"), bytes(event["data"]).hex())
    return 0


address, key = int(sys.argv[1]), None if sys.argv[2] == "-" else bytes.fromhex(sys.argv[2])
flags = [] if key is None else [osdp.LibFlag.EnforceSecure]
panel = osdp.ControlPanel([osdp.PDInfo(address, Line(), scbk=key, flags=flags)], log_level=osdp.LogLevel.Warning)
panel.set_event_handler(on_event)
panel.start()
if panel.online_wait(address, timeout=8):
    say("online")
if key is not None and panel.sc_wait(address, timeout=4):
    say("secure")
sys.stdin.read()
threading.Thread(target=panel.teardown, daemon=True).start()
