"""The network: one pass over a fingerprint gives, for every cell of 8 x 8 pixels, whether there is finger, how legible it
is, the direction of the ridges, whether a minutia lies there, where and which way it points; and a map of features from
which a second, small network describes the surroundings of each minutia.

Shapes are N x C x H x W. Angles are radians, counter-clockwise as one sees them, from the x axis.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

CELL = 8  # pixels of a cell's side
FEATURES = 32  # channels of the feature map
DESCRIPTOR = 64  # values of a descriptor
GRID = 5  # points of the sampling grid's side
SPACING = 10.0  # pixels between them
SPAN = GRID * GRID * FEATURES + 4  # inputs of the describer: samples, then cos and sin of angle and twice the angle

# Channels of the output "cells".
MASK, CONFIDENCE, COS2, SIN2, MINUTIA, DX, DY, COS, SIN = range(9)
CELLS = 9

WINDOW = 33  # pixels of the window of the local normalisation
FLOOR = 6.0  # grey levels added to the deviation, so that empty glass stays quiet
CLIP = 3.0


def normalise(grey):
    """Grey levels 0..255 to the network's input: local mean 0, local deviation about 1, clipped. Windows are cut at the
    edges of the picture. Vigil's kernels do the same; the test compares both."""
    ones = torch.ones_like(grey[:1, :1])

    def box(x):
        x = F.avg_pool2d(x, (WINDOW, 1), 1, (WINDOW // 2, 0))
        return F.avg_pool2d(x, (1, WINDOW), 1, (0, WINDOW // 2))

    weight = box(ones)
    mean = box(grey) / weight
    var = box(grey * grey) / weight - mean * mean
    return ((grey - mean) / (var.clamp(min=0).sqrt() + FLOOR)).clamp(-CLIP, CLIP)


def conv(cin, cout, stride=1, dilation=1):
    return nn.Sequential(
        nn.Conv2d(cin, cout, 3, stride, dilation, dilation, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)
    )


class Block(nn.Module):
    """Two convolutions and a skip."""

    def __init__(self, width, dilation):
        super().__init__()
        self.a = conv(width, width, 1, dilation)
        self.b = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        return F.relu(x + self.b(self.a(x)))


class Extractor(nn.Module):
    """N x 1 x H x W, normalised, H and W multiples of 8 -> cells N x 9 x H/8 x W/8 and features N x 32 x H/8 x W/8."""

    def __init__(self, width=96):
        super().__init__()
        self.stem = nn.Sequential(conv(1, 24, 2), conv(24, 24), conv(24, 48, 2), Block(48, 1), conv(48, width, 2))
        self.trunk = nn.Sequential(*[Block(width, d) for d in (1, 2, 4, 2, 1)])
        self.cells = nn.Conv2d(width, CELLS, 1)
        self.features = nn.Conv2d(width, FEATURES, 1)
        self.ridges = nn.Conv2d(width, CELL * CELL, 1)  # for training only: the clean picture of the ridges
        nn.init.constant_(self.cells.bias[MINUTIA], -4.0)

    def forward(self, x, ridges=False):
        t = self.trunk(self.stem(x))
        out = self.cells(t), self.features(t)
        return out + (F.pixel_shuffle(self.ridges(t), CELL),) if ridges else out


class Describer(nn.Module):
    """M x 804 samples about minutiae -> M x 64 descriptors of unit length."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(SPAN, 160), nn.ReLU(inplace=True), nn.Linear(160, DESCRIPTOR))

    def forward(self, x):
        return F.normalize(self.layers(x), dim=1)


def sample(features, where, x, y, angle):
    """The describer's input for minutiae at pixels (x, y) of the pictures where (indices), all of length M."""
    n, c, h, w = features.shape
    steps = (torch.arange(GRID, device=x.device, dtype=x.dtype) - GRID // 2) * SPACING
    along, across = [g.reshape(1, -1) for g in torch.meshgrid(steps, steps, indexing="ij")]
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    px = x[:, None] + along * cos + across * sin
    py = y[:, None] - along * sin + across * cos
    fx, fy = (px - 3.5) / CELL, (py - 3.5) / CELL
    x0, y0 = fx.floor(), fy.floor()
    flat = features.permute(0, 2, 3, 1).reshape(n * h * w, c)
    out = 0
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):  # bilinear; outside the map there is nothing
        cx, cy = x0 + dx, y0 + dy
        weight = (1 - (fx - cx).abs()) * (1 - (fy - cy).abs()) * ((cx >= 0) & (cy >= 0) & (cx < w) & (cy < h))
        at = (where[:, None] * h + cy.clamp(0, h - 1).long()) * w + cx.clamp(0, w - 1).long()
        out = out + flat[at] * weight[..., None].to(flat.dtype)
    out = out.reshape(len(x), -1)
    turn = torch.stack([angle.cos(), angle.sin(), (2 * angle).cos(), (2 * angle).sin()], 1)
    return torch.cat([out, turn.to(out.dtype)], 1)


def minutiae(cells, threshold=0.5, limit=96, radius=6.0):
    """Minutiae of one picture (cells: 9 x h x w, on the CPU): rows of x, y, angle, score, best first. A minutia closer
    than radius pixels to a better one is dropped."""
    score = torch.sigmoid(cells[MINUTIA]) * (cells[MASK] > 0)
    found = []
    for k in score.flatten().argsort(descending=True)[: 4 * limit].tolist():
        r, c = divmod(k, cells.shape[2])
        s = float(score[r, c])
        if s < threshold or len(found) == limit:
            break
        v = cells[:, r, c]
        x = c * CELL + 3.5 + float(v[DX]) * CELL
        y = r * CELL + 3.5 + float(v[DY]) * CELL
        if all((x - f[0]) ** 2 + (y - f[1]) ** 2 >= radius * radius for f in found):
            found.append((x, y, float(torch.atan2(v[SIN], v[COS])), s))
    return found
