"""Trains the fingerprint networks on generated prints only, and exports them.

    python3 train.py --vigild ../../bin/vigild --work DIR --minutes 110

Pictures are generated once into DIR/train and DIR/valid; training runs for the given time, writes DIR/checkpoint.pt every
few minutes, goes on from it when it is started again, draws DIR/curve.png, and writes DIR/model.pt, from which export.py
makes the ONNX files. It runs the same on a GPU and on a CPU; only the batch and the crop differ by default.
"""

import argparse
import json
import os
import subprocess
import time

import torch
import torch.nn.functional as F

import data
from model import CELL, CONFIDENCE, COS, COS2, DX, DY, MASK, MINUTIA, SIN, SIN2, Describer, Extractor, minutiae, normalise, sample

PAIRS_PER_PICTURE = 24  # minutiae of a pair of impressions that teach the describer
TEMPERATURE = 0.08


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--vigild", default="../../bin/vigild", help="makes the pictures")
    p.add_argument("--work", required=True, help="folder for pictures, checkpoints and results")
    p.add_argument("--minutes", type=float, default=110, help="of training, all runs together")
    p.add_argument("--fingers", type=int, default=800, help="generated for training")
    p.add_argument("--impressions", type=int, default=6, help="of each finger")
    p.add_argument("--batch", type=int, help="pairs of impressions a step; default 48 on a GPU, 4 on a CPU")
    p.add_argument("--crop", type=int, nargs=2, help="height and width; default 352 320 on a GPU, 256 224 on a CPU")
    p.add_argument("--rate", type=float, default=2e-3, help="learning rate at the top of its curve")
    p.add_argument("--width", type=int, default=96, help="channels of the trunk")
    p.add_argument("--snapshots", type=int, default=0, help="models kept on the way, to see how training pays, as DIR/at-MINUTES.pt")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    a = p.parse_args()
    a.device = "cuda" if torch.cuda.is_available() else "cpu"
    a.batch = a.batch or (48 if a.device == "cuda" else 4)
    a.crop = a.crop or ([352, 320] if a.device == "cuda" else [256, 224])
    return a


def generate(a, name, fingers, impressions, seed):
    folder = os.path.join(a.work, name)
    if not os.path.exists(os.path.join(folder, "done")):
        subprocess.run(
            [a.vigild, "synth", "--out", folder, "--fingers", str(fingers), "--impressions", str(impressions),
             "--seed", str(seed), "--severity", "mixed", "--dpi", "430,590", "--ridges", "--workers", str(a.threads)],
            check=True)
        open(os.path.join(folder, "done"), "w").close()
    return data.Pictures(folder, a.device, a.threads)


def targets(rows, h, w):
    """Presence per cell, and the cell (picture, row, column) and values of every visible minutia."""
    k, m = torch.nonzero(rows[..., 3] >= 0, as_tuple=True)
    x, y, angle = rows[k, m, 0], rows[k, m, 1], rows[k, m, 2]
    c, r = (x / CELL).long().clamp(0, w - 1), (y / CELL).long().clamp(0, h - 1)
    present = torch.zeros(len(rows), h, w, device=rows.device)
    present[k, r, c] = 1
    near = F.max_pool2d(present[:, None], 3, 1, 1)[:, 0] - present
    return present, near, (k, r, c), (x - (c * CELL + 3.5)) / CELL, (y - (r * CELL + 3.5)) / CELL, angle


def picture_loss(cells, ridges, want, mask, orientation, rows):
    h, w = cells.shape[2:]
    loss = {"mask": F.binary_cross_entropy_with_logits(cells[:, MASK], mask)}
    known = (orientation != data.NO_RIDGE).float()
    twice = orientation.float() * (torch.pi / 90)
    v = F.normalize(torch.stack([cells[:, COS2], cells[:, SIN2]], 1), dim=1, eps=1e-4)
    agree = v[:, 0] * twice.cos() + v[:, 1] * twice.sin()
    loss["orientation"] = ((1 - agree) * known).sum() / known.sum().clamp(min=1)
    legible = ((agree.detach() - 0.5) * 2).clamp(0, 1) * known
    loss["confidence"] = 0.3 * F.binary_cross_entropy_with_logits(cells[:, CONFIDENCE], legible)
    present, near, at, dx, dy, angle = targets(rows, h, w)
    p = torch.sigmoid(cells[:, MINUTIA])
    focal = -present * (1 - p) ** 2 * F.logsigmoid(cells[:, MINUTIA])
    focal = focal - (1 - present) * (1 - 0.8 * near) * p**2 * F.logsigmoid(-cells[:, MINUTIA])
    count = max(1, len(dx))
    loss["minutiae"] = focal.sum() / count
    v = cells[at[0], :, at[1], at[2]]
    loss["offset"] = ((v[:, DX] - dx).abs() + (v[:, DY] - dy).abs()).sum() / count
    u = F.normalize(torch.stack([v[:, COS], v[:, SIN]], 1), dim=1, eps=1e-4)
    loss["direction"] = (1 - u[:, 0] * angle.cos() - u[:, 1] * angle.sin()).sum() / count
    inside = F.interpolate((mask > 0.5).float()[:, None], scale_factor=CELL)
    loss["ridges"] = ((ridges - want).abs() * inside).sum() / inside.sum().clamp(min=1)
    return loss


def common(rows_a, rows_b, generator):
    """Minutiae seen in both pictures of each pair: picture, position in a, position in b."""
    same = (rows_a[:, :, None, 3] == rows_b[:, None, :, 3]) & (rows_a[:, :, None, 3] >= 0)
    found = torch.nonzero(same).cpu()
    found = found[torch.randperm(len(found), generator=generator)]
    rank = torch.zeros(len(found), dtype=torch.long)
    for k in range(len(rows_a)):
        at = found[:, 0] == k
        rank[at] = torch.arange(int(at.sum()))
    return found[rank < PAIRS_PER_PICTURE]


def describe(describer, features, rows, which, at, jitter=True):
    m = rows[which, at]
    x, y, angle = m[:, 0], m[:, 1], m[:, 2]
    if jitter:
        x, y = x + 2 * torch.randn_like(x), y + 2 * torch.randn_like(y)
        angle = angle + 0.1 * torch.randn_like(angle)
    return describer(sample(features, which, x, y, angle))


def contrast(describer, features, rows, pairs):
    """Each minutia must find itself among all others of the batch."""
    n = len(rows) // 2
    k, i, j = pairs.to(rows.device).T
    a = describe(describer, features[:n], rows[:n], k, i)
    b = describe(describer, features[n:], rows[n:], k, j)
    logits = a @ b.T / TEMPERATURE
    truth = torch.arange(len(a), device=a.device)
    loss = (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2
    return loss, (logits.argmax(1) == truth).float().mean()


def batch(pictures, a, generator):
    """Two impressions of each of a.batch fingers: first all first ones, then all second ones."""
    chosen = torch.randperm(len(pictures.fingers), generator=generator)[: a.batch].tolist()
    first, second = [], []
    for f in chosen:
        of = pictures.fingers[f]
        i, j = torch.randperm(len(of), generator=generator)[:2].tolist()
        first.append(of[i])
        second.append(of[j])
    return data.crop(pictures, first + second, a.crop, generator)


@torch.no_grad()
def validate(extractor, describer, pictures, count=64):
    """Precision and recall of minutiae (within 8 pixels and 20 degrees), error of orientation in degrees, overlap of the
    mask, and how often a minutia finds itself first, on spoilt pictures of fingers never trained on."""
    extractor.eval(), describer.eval()
    state = torch.random.get_rng_state()
    torch.manual_seed(99)
    found = given = right = 0
    error, iou, hits = [], [], []
    for start in range(0, count, 16):
        fingers = pictures.fingers[start // 2 : start // 2 + 8]
        which = [f[0] for f in fingers] + [f[1] for f in fingers]
        g = torch.Generator().manual_seed(start)
        grey, _, mask, orientation, rows = data.crop(pictures, which, [416, 352], g)
        x, mask, orientation, rows = data.window(data.spoil(grey), mask, orientation, rows)
        cells, features = extractor(x)
        cells, features = cells.float(), features.float()
        for k in range(len(which)):
            truth = [m for m in rows[k].tolist() if m[3] >= 0]
            mine = minutiae(cells[k].cpu())
            taken = set()
            for mx, my, ma, _ in mine:
                best = [i for i, t in enumerate(truth) if i not in taken and (t[0] - mx) ** 2 + (t[1] - my) ** 2 < 64
                        and abs((t[2] - ma + 3.14159) % 6.28318 - 3.14159) < 0.35]
                if best:
                    taken.add(min(best, key=lambda i: (truth[i][0] - mx) ** 2 + (truth[i][1] - my) ** 2))
            found, given, right = found + len(mine), given + len(truth), right + len(taken)
        known = orientation != data.NO_RIDGE
        diff = torch.atan2(cells[:, SIN2], cells[:, COS2]) * 90 / torch.pi - orientation.float()
        error.append(((diff + 90) % 180 - 90).abs()[known].mean())
        a, b = cells[:, MASK] > 0, mask > 0.5
        iou.append((a & b).sum() / (a | b).sum())
        hits.append(contrast(describer, features, rows, common(rows[:8], rows[8:], g))[1])
    torch.random.set_rng_state(state)
    extractor.train(), describer.train()
    mean = lambda v: float(torch.stack([x.float().cpu() for x in v]).mean())
    return {"precision": right / max(1, found), "recall": right / max(1, given), "orientation_degrees": mean(error),
            "mask_iou": mean(iou), "descriptor_rank1": mean(hits)}


class Average:
    """The running mean of the weights, which is what is kept."""

    def __init__(self, models, decay):
        self.models, self.decay, self.steps = models, decay, 0
        self.values = [{k: v.detach().clone() for k, v in m.state_dict().items()} for m in models]

    def update(self):
        self.steps += 1
        d = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for values, m in zip(self.values, self.models):
            for k, v in m.state_dict().items():
                values[k] = values[k] * d + v * (1 - d) if v.dtype.is_floating_point else v.clone()

    def copies(self, width):
        out = Extractor(width), Describer()
        for m, values in zip(out, self.values):
            m.load_state_dict({k: v.cpu() for k, v in values.items()})
        return out


def keep(path, a, average, spent, step):
    """Writes the averaged weights, all that export.py needs."""
    torch.save({"extractor": average.values[0], "describer": average.values[1], "width": a.width, "minutes": spent / 60,
                "step": step, "pictures": step * 2 * a.batch, "device": a.device}, path)


def draw_curve(path, history):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    minutes = [h["minutes"] for h in history]
    fig, axes = plt.subplots(1, 2, figsize=(11, 4))
    axes[0].plot(minutes, [h["loss"] for h in history])
    axes[0].set(xlabel="minutes of training", ylabel="loss", yscale="log", title="training loss")
    for k in ("precision", "recall", "mask_iou", "descriptor_rank1"):
        axes[1].plot(minutes, [h[k] for h in history], label=k.replace("_", " "))
    axes[1].set(xlabel="minutes of training", ylim=(0, 1), title="generated fingers never trained on")
    axes[1].legend()
    fig.tight_layout()
    fig.savefig(path, dpi=110)
    plt.close(fig)


def main():
    a = arguments()
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)
    os.makedirs(a.work, exist_ok=True)
    started = time.time()
    train = generate(a, "train", a.fingers, a.impressions, 1_000_000)
    valid = generate(a, "valid", 32, 2, 2_000_000)
    print(f"{len(train)} pictures of {len(train.fingers)} fingers on {a.device}, ready after {time.time() - started:.0f} s", flush=True)
    extractor, describer = Extractor(a.width).to(a.device), Describer().to(a.device)
    if a.device == "cuda":
        extractor = extractor.to(memory_format=torch.channels_last)
    average = Average([extractor, describer], 0.998)
    params = [*extractor.parameters(), *describer.parameters()]
    optimiser = torch.optim.AdamW(params, lr=a.rate, weight_decay=1e-2)
    history, spent, step = [], 0.0, 0
    checkpoint = os.path.join(a.work, "checkpoint.pt")
    if os.path.exists(checkpoint):
        c = torch.load(checkpoint, map_location=a.device)
        extractor.load_state_dict(c["extractor"]), describer.load_state_dict(c["describer"])
        optimiser.load_state_dict(c["optimiser"])
        average.values, average.steps = c["average"], c["step"]
        history, spent, step = c["history"], c["spent"], c["step"]
        print(f"going on after {spent / 60:.1f} minutes, step {step}", flush=True)
    generator = torch.Generator().manual_seed(a.seed + step)
    budget, last, told, running = a.minutes * 60, time.time(), 0.0, {}
    saved = spent
    marks = [budget * 0.5 ** k for k in range(a.snapshots, 0, -1)]
    marks = [m for m in marks if m > spent]
    while spent < budget:
        share = spent / budget
        rate = a.rate * min(1, (step + 1) / 200) * (0.5 + 0.5 * torch.cos(torch.tensor(share * torch.pi)).item()) + 1e-6
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.no_grad():
            grey, want, mask, orientation, rows = batch(train, a, generator)
            x, mask, orientation, rows = data.window(data.spoil(grey), mask, orientation, rows)
        with torch.autocast(a.device, dtype=torch.bfloat16, enabled=a.device == "cuda"):
            if a.device == "cuda":
                x = x.contiguous(memory_format=torch.channels_last)
            cells, features, ridges = extractor(x, ridges=True)
        loss = picture_loss(cells.float(), ridges.float(), want, mask, orientation, rows)
        n = len(rows) // 2
        loss["descriptors"], _ = contrast(describer, features.float(), rows, common(rows[:n], rows[n:], generator))
        loss["descriptors"] = 0.4 * loss["descriptors"]
        total = sum(loss.values())
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(params, 5.0)
        optimiser.step()
        average.update()
        step += 1
        for k, v in {**loss, "loss": total}.items():
            running.setdefault(k, []).append(v.detach())
        spent, last = spent + time.time() - last, time.time()
        if spent - told > min(300, budget / 15) or spent >= budget:
            told = spent
            mean = {k: float(torch.stack(v).mean()) for k, v in running.items()}
            running = {}
            e, d = [m.to(a.device) for m in average.copies(a.width)]
            history.append({"minutes": spent / 60, "step": step, **mean, **validate(e, d, valid)})
            draw_curve(os.path.join(a.work, "curve.png"), history)
            print(f"{spent / 60:6.1f} of {a.minutes:.0f} min, step {step}: " + ", ".join(f"{k} {v:.3f}" for k, v in history[-1].items() if k not in ("minutes", "step")), flush=True)
            with open(os.path.join(a.work, "history.json"), "w") as f:
                json.dump(history, f, indent=1)
        if spent - saved > 120 or spent >= budget:
            saved = spent
            torch.save({"extractor": extractor.state_dict(), "describer": describer.state_dict(), "optimiser": optimiser.state_dict(),
                        "average": average.values, "history": history, "spent": spent, "step": step}, checkpoint + ".new")
            os.replace(checkpoint + ".new", checkpoint)
            keep(os.path.join(a.work, "model.pt"), a, average, spent, step)
            last = time.time()
        if marks and spent >= marks[0]:
            keep(os.path.join(a.work, f"at-{spent / 60:05.1f}.pt"), a, average, spent, step)
            marks = [m for m in marks if m > spent]
    print(f"done: {step} steps, {step * 2 * a.batch} pictures, {spent / 60:.1f} minutes")


if __name__ == "__main__":
    main()
