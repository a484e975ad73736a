"""Reads the folders that `vigild synth --ridges` writes into arrays, and cuts and spoils batches of them on the device."""

import base64
import glob
import json
import multiprocessing
import os

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from model import CELL, normalise

MOST = 160  # minutiae kept of a picture
NO_RIDGE = 255


def read(path):
    """One picture: grey, ridges, mask and orientation per cell, minutiae (x, y, angle, id), finger seed."""
    stem = path[: -len(".ridges.png")]
    with open(stem + ".json") as f:
        truth = json.load(f)
    grey = np.asarray(Image.open(stem + ".png"))
    ridges = np.asarray(Image.open(path))
    h, w = grey.shape
    bits = np.unpackbits(np.frombuffer(base64.b64decode(truth["mask"]["bits"]), np.uint8), bitorder="little")[: h * w]
    mask = bits.reshape(h // CELL, CELL, w // CELL, CELL).mean((1, 3)).astype(np.float16)
    orientation = np.frombuffer(base64.b64decode(truth["orientation"]), np.uint8).reshape(h // CELL, w // CELL)
    rows = np.full((MOST, 4), -1, np.float32)
    for i, m in enumerate(truth["minutiae"][:MOST]):
        rows[i] = m["x"], m["y"], m["angle"], m["id"]
    return grey, ridges, mask, orientation, rows, int(truth["finger_seed"])


class Pictures:
    """All pictures of a folder on one device; index[f] lists the pictures of finger f."""

    def __init__(self, folder, device, workers):
        paths = sorted(glob.glob(os.path.join(folder, "*.ridges.png")))
        if not paths:
            raise SystemExit(f"no pictures in {folder}: make them with `vigild synth --ridges --out {folder}`")
        with multiprocessing.Pool(workers) as pool:
            rows = pool.map(read, paths, chunksize=16)

        def stack(i):
            return torch.from_numpy(np.stack([r[i] for r in rows])).to(device)

        self.grey, self.ridges, self.mask, self.orientation, self.minutiae = (stack(i) for i in range(5))
        fingers = {}
        for i, r in enumerate(rows):
            fingers.setdefault(r[5], []).append(i)
        self.fingers = [v for v in fingers.values() if len(v) > 1]
        self.device = device

    def __len__(self):
        return len(self.grey)


def crop(pictures, which, size, generator):
    """Cuts the same size out of pictures, on whole cells. Returns grey, ridges, mask, orientation, minutiae."""
    n, h, w = len(which), pictures.grey.shape[1], pictures.grey.shape[2]
    th, tw = min(size[0], h), min(size[1], w)
    out = [[], [], [], []]
    oy = (torch.randint(0, (h - th) // CELL + 1, (n,), generator=generator) * CELL).tolist()
    ox = (torch.randint(0, (w - tw) // CELL + 1, (n,), generator=generator) * CELL).tolist()
    for k, i in enumerate(which):
        y, x = oy[k], ox[k]
        cy, cx, ch, cw = y // CELL, x // CELL, th // CELL, tw // CELL
        out[0].append(pictures.grey[i, y : y + th, x : x + tw])
        out[1].append(pictures.ridges[i, y : y + th, x : x + tw])
        out[2].append(pictures.mask[i, cy : cy + ch, cx : cx + cw])
        out[3].append(pictures.orientation[i, cy : cy + ch, cx : cx + cw])
    grey, ridges, mask, orientation = [torch.stack(o) for o in out]
    rows = pictures.minutiae[torch.tensor(which, device=pictures.device)].clone()
    rows[..., 0] -= torch.tensor(ox, device=rows.device)[:, None]
    rows[..., 1] -= torch.tensor(oy, device=rows.device)[:, None]
    gone = (rows[..., 0] < 0) | (rows[..., 1] < 0) | (rows[..., 0] > tw - 1) | (rows[..., 1] > th - 1)
    rows[..., 3] = rows[..., 3].masked_fill(gone, -1)
    return grey[:, None].float(), ridges[:, None].float() / 255, mask.float(), orientation, rows


def cloud(n, h, w, cells, device):
    """Smooth noise, about -1 to 1, with that many waves across."""
    x = torch.randn(n, 1, cells + 2, cells + 2, device=device) * 0.7
    return F.interpolate(x, size=(h, w), mode="bicubic", align_corners=True)


def some(n, share, device):
    return (torch.rand(n, 1, 1, 1, device=device) < share).float()


def draw(n, lo, hi, device):
    return lo + (hi - lo) * torch.rand(n, 1, 1, 1, device=device)


def spoil(grey):
    """Makes clean generated pictures look like those of many sensors: swollen and thinned ridges, dry skin, stains, uneven
    light, gaps, seams, stripes, another print below, blur, speckle."""
    n, _, h, w = grey.shape
    d = grey.device
    back = grey[:, :, ::4, ::4].flatten(1).quantile(0.95, dim=1).view(n, 1, 1, 1)
    # ridges that swell here and thin there
    swell = (cloud(n, h, w, 3, d) + draw(n, -0.6, 0.6, d)).clamp(-1, 1) * some(n, 0.6, d)
    dark = -F.max_pool2d(-grey, 3, 1, 1)
    light = F.max_pool2d(grey, 3, 1, 1)
    grey = grey + swell.clamp(min=0) * (dark - grey) + (-swell).clamp(min=0) * (light - grey)
    # dry skin: ridges broken by grain of one to three pixels
    grain = torch.randn(n, 1, h, w, device=d) + 1.5 * F.interpolate(
        torch.randn(n, 1, h // 2, w // 2, device=d), size=(h, w), mode="bilinear", align_corners=False
    )
    dry = (cloud(n, h, w, 4, d) + draw(n, -1.2, 0.4, d)).clamp(0, 1) * some(n, 0.6, d)
    grey = grey + (back - grey).clamp(min=0) * (dry * (grain * 0.6)).clamp(0, 0.9)
    # wet skin: valleys filled, down to specks of light
    wet = (cloud(n, h, w, 4, d) * 1.5 + draw(n, -1.4, 0.9, d)).clamp(0, 1) * some(n, 0.6, d)
    smooth = F.avg_pool2d(dark, 7, 1, 3, count_include_pad=False)
    specks = (grain * draw(n, 0, 0.35, d)).clamp(-0.3, 0.5)
    grey = grey + wet * (draw(n, 0.4, 0.97, d) - specks).clamp(0, 1) * (torch.minimum(smooth, grey) - grey)
    # another print below
    other = grey.roll(1, 0).flip(3)
    under = some(n, 0.15, d) * draw(n, 0.1, 0.45, d)
    grey = torch.minimum(grey, back - (back - other).clamp(min=0) * under)
    # places that do not touch
    gap = torch.sigmoid((cloud(n, h, w, 5, d) - draw(n, 0.7, 2.0, d)) * 12) * some(n, 0.4, d)
    grey = grey + gap * (back - grey)
    # contrast that changes over the picture
    keep = (1 - (cloud(n, h, w, 3, d) + draw(n, -0.7, 0.5, d)).clamp(0, 0.85)) * 1.0
    level = grey.mean((2, 3), True)
    grey = torch.where(some(n, 0.6, d) > 0, level + (grey - level) * keep, grey)
    # what the sensor's electronics make of it: halos, relief, saturation
    wide = F.avg_pool2d(grey, 9, 1, 4, count_include_pad=False)
    grey = grey + (grey - wide) * draw(n, 0, 1.5, d) * some(n, 0.3, d)
    shifted = grey.roll((int(torch.randint(-2, 3, ())), int(torch.randint(-2, 3, ()))), (2, 3))
    grey = grey + (grey - shifted) * draw(n, 0, 0.8, d) * some(n, 0.2, d)
    low, span = grey.flatten(1).amin(1).view(n, 1, 1, 1), (grey.amax((2, 3), True) - grey.amin((2, 3), True)).clamp(min=1)
    unit = ((grey - low) / span).clamp(0, 1)
    unit = torch.where(some(n, 0.4, d) > 0, unit ** (2.5 ** draw(n, -1, 1, d)), unit)
    hard = torch.sigmoid((unit - draw(n, 0.25, 0.75, d)) * draw(n, 4, 14, d))
    unit = torch.where(some(n, 0.3, d) > 0, hard, unit)
    grey = low + unit * span
    # blur, then the sensor's own marks
    soft = F.avg_pool2d(grey, 3, 1, 1, count_include_pad=False)
    grey = grey + (soft - grey) * draw(n, 0, 1, d) * some(n, 0.5, d)
    stripes = torch.randn(n, 1, 1, w, device=d) * some(n, 0.15, d) + torch.randn(n, 1, h, 1, device=d) * some(n, 0.15, d)
    grey = grey + stripes * draw(n, 1, 10, d)
    grey = grey + cloud(n, h, w, 2, d) * draw(n, 0, 30, d)
    grey = grey + torch.randn(n, 1, h, w, device=d) * draw(n, 0, 14, d)
    # seams of a sweep sensor: everything below a row is moved sideways
    for k in range(n):
        if torch.rand(()) < 0.15:
            for _ in range(int(torch.randint(1, 6, ()))):
                row, by = int(torch.randint(8, h - 8, ())), int(torch.randint(-2, 3, ()))
                grey[k, :, row:] = grey[k, :, row:].roll(by, 2)
    level = grey.mean((2, 3), True)
    grey = (grey - level) * draw(n, 0.3, 1.3, d) + level + draw(n, -40, 20, d)
    return grey.clamp(0, 255).round()


def window(grey, mask, orientation, rows):
    """Normalises, and blanks what lies outside a random rectangle, as where a picture is smaller than the network's
    input; what is blanked is no finger."""
    n, _, h, w = grey.shape
    x = normalise(grey)
    ys, xs = torch.arange(h, device=x.device), torch.arange(w, device=x.device)
    edge = torch.zeros(n, 4)
    for k in range(n):
        if torch.rand(()) < 0.4:
            edge[k] = (torch.rand(4) * torch.tensor([w, h, w, h]) * 0.2 / CELL).floor() * CELL
    e = edge.to(x.device)[:, :, None]
    inx = (xs >= e[:, 0]) & (xs < w - e[:, 2])
    iny = (ys >= e[:, 1]) & (ys < h - e[:, 3])
    inside = (iny[:, :, None] & inx[:, None, :]).float()
    x = x * inside[:, None]
    cells = F.avg_pool2d(inside[:, None], CELL)[:, 0]
    mask = mask * cells
    orientation = torch.where(cells > 0.5, orientation, torch.full_like(orientation, NO_RIDGE))
    rows = rows.clone()
    ix, iy = rows[..., 0].round().long().clamp(0, w - 1), rows[..., 1].round().long().clamp(0, h - 1)
    hidden = inside[torch.arange(n, device=x.device)[:, None], iy, ix] < 0.5
    rows[..., 3] = torch.where(hidden, torch.full_like(rows[..., 3], -1), rows[..., 3])
    return x, mask, orientation, rows
