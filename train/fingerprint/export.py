"""Writes the two ONNX files of a bundle from model.pt: extract.onnx (one picture of fixed size) and describe.onnx (a fixed
number of minutiae). Batch norms are folded into the convolutions by the exporter; the head that exists for training only
is left out.

    python3 export.py --model DIR/model.pt --out DIR
"""

import argparse
import os

import torch

from model import SPAN, Describer, Extractor

HEIGHT, WIDTH = 512, 416  # the network's input; larger pictures are cut about the finger
MINUTIAE = 64
OPSET = 13


class Deployed(torch.nn.Module):
    """The extractor without what only training needs."""

    def __init__(self, extractor):
        super().__init__()
        self.extractor = extractor

    def forward(self, x):
        return self.extractor(x)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True)
    p.add_argument("--out", required=True)
    a = p.parse_args()
    saved = torch.load(a.model, map_location="cpu")
    extractor, describer = Extractor(saved["width"]), Describer()
    extractor.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in saved["extractor"].items()})
    describer.load_state_dict(saved["describer"])
    os.makedirs(a.out, exist_ok=True)
    with torch.no_grad():
        torch.onnx.export(
            Deployed(extractor).eval(), torch.zeros(1, 1, HEIGHT, WIDTH), os.path.join(a.out, "finger_extract.onnx"),
            input_names=["picture"], output_names=["cells", "features"], opset_version=OPSET)
        torch.onnx.export(
            describer.eval(), torch.zeros(MINUTIAE, SPAN), os.path.join(a.out, "finger_describe.onnx"),
            input_names=["samples"], output_names=["descriptors"], opset_version=OPSET)
    for f in ("finger_extract.onnx", "finger_describe.onnx"):
        print(f, os.path.getsize(os.path.join(a.out, f)), "bytes")


if __name__ == "__main__":
    main()
