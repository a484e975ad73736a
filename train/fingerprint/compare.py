"""Times the extractor in PyTorch, eager and TorchScript, and in Vigil's engine, fp32 and as deployed: same network, same
machine, one thread, batch 1 and 8, and prints one table.

    python3 compare.py --model DIR/model.pt

The engine's side is bench/extract, which runs the bundle in the binary: give the model that the bundle was exported from.
"""

import argparse
import json
import statistics
import subprocess
import time

import torch

from export import HEIGHT, WIDTH, Deployed
from model import Extractor


def milliseconds(f, batch, runs):
    x = torch.randn(batch, 1, HEIGHT, WIDTH)
    took = []
    with torch.no_grad():
        f(x)
        for _ in range(max(3, runs // batch)):
            start = time.perf_counter()
            f(x)
            took.append((time.perf_counter() - start) * 1e3 / batch)
    return statistics.median(took)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True)
    p.add_argument("--runs", type=int, default=24)
    a = p.parse_args()
    torch.set_num_threads(1)
    saved = torch.load(a.model, map_location="cpu")
    e = Extractor(saved["width"])
    e.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in saved["extractor"].items()})
    eager = Deployed(e).eval()
    with torch.no_grad():
        script = torch.jit.optimize_for_inference(torch.jit.trace(eager, torch.zeros(1, 1, HEIGHT, WIDTH)))
    rows = [(name, b, milliseconds(f, b, a.runs)) for name, f in (("PyTorch eager", eager), ("TorchScript", script)) for b in (1, 8)]
    out = subprocess.run(["go", "run", "./bench/extract"], cwd="../..", check=True, capture_output=True, text=True).stdout
    rows += [(r["engine"], r["batch"], r["ms_per_picture"]) for r in json.loads(out)]
    base = {b: t for name, b, t in rows if name == "PyTorch eager"}
    print(f"PyTorch {torch.__version__}, one thread, {WIDTH}x{HEIGHT}, milliseconds a picture (median), and times as fast as eager")
    for name, b, t in rows:
        print(f"{name:38} batch {b}  {t:7.1f} ms  {base[b] / t:5.2f}x")


if __name__ == "__main__":
    main()
