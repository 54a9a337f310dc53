#!/usr/bin/env python3
"""The recipes `ce` and `auto` of this folder in PyTorch, written anew from their description, for comparison.

    ieq-wgpu convert SRC --to folder --out pictures        # train/CLASS/*.png, novel/CLASS/*.png
    python pytorch.py pictures --recipe ce|strokes|colour --rows 51200 --seed 0 [--mixup 0.2] [--cutmix 0.5] [--bf16]

Prints a JSON line: 5-way 1-shot and 5-shot accuracy of logistic regression over 600 episodes of the novel classes, percent,
with 1.96 sd / sqrt(600). Episodes are drawn by NumPy, so they are others than ours; so are the random streams of training.

- ce: cross-entropy; crops of the padded picture, colour jitter 0.4, mirroring.
- strokes: half of the rows turned by 90, 180 or 270 degrees, class x rotation labels, no mirroring (the program's `auto` on
  strokes has two small losses more).
- colour: ce with half of the arithmetic on pictures of 5/8 of the side, rows counted by their area.

All: 32 rows a step, SGD with Nesterov's momentum 0.9, weight decay 5e-4, rate 0.1 after a warm-up of a tenth, cosine to zero.
Needs torch, numpy and Pillow.
"""

import argparse
import json
import math
import pathlib
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
from resnet12 import Network  # noqa: E402

ROWS, RATE, DECAY, WARM = 32, 0.1, 5e-4, 0.1
GRAY = torch.tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)


def read(folder):
    """Pictures uint8 [N, 3, side, side] and labels of class folders in sorted order."""
    pictures, labels = [], []
    for label, cls in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        for file in sorted(path for path in cls.iterdir() if path.is_file()):
            pictures.append(np.asarray(Image.open(file).convert("RGB")).transpose(2, 0, 1))
            labels.append(label)
    return torch.from_numpy(np.stack(pictures)), torch.tensor(labels)


def augment(x, rng, mirror):
    """A crop of the picture in a border of an eighth, jitter of brightness, contrast and saturation, mirroring."""
    n, _, side, _ = x.shape
    pad = max(1, side // 8)
    padded = F.pad(x, (pad,) * 4)
    dy, dx = (torch.from_numpy(rng.integers(0, 2 * pad + 1, n)).view(n, 1) for _ in range(2))
    rows, columns = (dy + torch.arange(side)).view(n, 1, side, 1), (dx + torch.arange(side)).view(n, 1, 1, side)
    x = padded[torch.arange(n).view(n, 1, 1, 1), torch.arange(3).view(1, 3, 1, 1), rows, columns]
    for which in rng.permutation(3):
        factor = torch.from_numpy(rng.uniform(0.6, 1.4, n)).float().view(-1, 1, 1, 1)
        gray = (x * GRAY).sum(1, keepdim=True)
        other = [torch.zeros(()), gray.mean((2, 3), keepdim=True), gray][which]
        x = (factor * x + (1 - factor) * other).clamp(0, 1)
    if mirror:
        x = torch.where(torch.from_numpy(rng.random(n) < 0.5).view(-1, 1, 1, 1), x.flip(3), x)
    return x


def mixed(x, rng, args):
    """The batch mixed with itself: pictures, the permutation, and the share of the first label."""
    kinds = [kind for kind in ("mixup", "cutmix") if getattr(args, kind)]
    if not kinds:
        return x, None, 1.0
    order, kind = rng.permutation(len(x)), kinds[rng.integers(len(kinds))]
    if kind == "mixup":
        share = float(rng.beta(args.mixup, args.mixup))
        return share * x + (1 - share) * x[order], order, share
    if rng.random() >= args.cutmix:
        return x, None, 1.0
    side = x.shape[3]
    edge = round(side * math.sqrt(1 - rng.random()))
    (top, left) = (int(v) - edge // 2 for v in rng.integers(0, side, 2))
    window = np.s_[:, :, max(0, top) : max(0, top + edge), max(0, left) : max(0, left + edge)]
    x, source = x.clone(), x[order]
    x[window] = source[window]
    return x, order, 1 - x[window][0, 0].numel() / side**2


def train(pictures, labels, args):
    """A trained network; mean and std are those of the pictures."""
    torch.manual_seed(args.seed)
    rng = np.random.default_rng([77, args.seed])
    classes, side, turned = int(labels.max()) + 1, pictures.shape[3], args.recipe == "strokes"
    mean, std = (v(pictures.float() / 255) for v in (lambda x: x.mean((0, 2, 3)), lambda x: x.std((0, 2, 3))))
    about = dict(backbone="resnet12", widths=args.widths, classes=classes * (4 if turned else 1), transforms=None,
                 projection=None, side=side, mean=mean.tolist(), std=std.tolist())
    net = Network(about).train().to(memory_format=torch.channels_last)
    for m in net.modules():
        if isinstance(m, torch.nn.Conv2d):
            torch.nn.init.normal_(m.weight, 0, math.sqrt(2 / (m.out_channels * m.kernel_size[0] ** 2)))
    optimiser = torch.optim.SGD(net.parameters(), RATE, momentum=0.9, nesterov=True, weight_decay=DECAY)
    small = round(5 * side / 8) if args.recipe == "colour" else side
    area = (small / side) ** 2
    budget = args.rows // ROWS
    few = int(0.5 * budget / area) if small < side else 0
    order = np.zeros(0, np.int64)
    for step in range(few + budget - int(few * area)):
        done = (step * area if step < few else few * area + step - few) / budget
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, done / WARM) * (1 + math.cos(math.pi * done)) / 2
        if len(order) < ROWS:
            order = rng.permutation(len(pictures))
        batch, order = order[:ROWS], order[ROWS:]
        x, y = augment(pictures[batch].float() / 255, rng, not turned), labels[batch]
        if turned:
            quarter = np.concatenate([np.zeros(ROWS // 2, np.int64), rng.integers(1, 4, ROWS - ROWS // 2)])
            x = torch.stack([torch.rot90(one, int(k), (1, 2)) for one, k in zip(x, quarter)])
            y = 4 * y + torch.from_numpy(quarter)
        if step < few:
            x = F.adaptive_avg_pool2d(x, small)
        x, other, share = mixed((x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1), rng, args)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            features = net(x.contiguous(memory_format=torch.channels_last))
        logits = net.classifier(features.float())
        loss = F.cross_entropy(logits, y)
        if other is not None:
            loss = share * loss + (1 - share) * F.cross_entropy(logits, y[other])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net


def score(features, labels, shots, episodes=600, ways=5, queries=15):
    """Accuracy of each episode, percent: logistic regression with L2 penalty, C = 1, by accelerated gradient descent."""
    by_class = [np.nonzero(labels.numpy() == c)[0] for c in range(int(labels.max()) + 1)]
    chosen = np.zeros((episodes, ways, shots + queries), np.int64)
    for episode in range(episodes):
        rng = np.random.default_rng([1234, shots, episode])
        for way, c in enumerate(rng.choice(len(by_class), ways, replace=False)):
            chosen[episode, way] = rng.choice(by_class[c], shots + queries, replace=False)
    with_one = lambda x: torch.cat([x, torch.ones(*x.shape[:2], 1)], 2)
    support, query = (with_one(features[chosen[:, :, part].reshape(episodes, -1)]) for part in (np.s_[:shots], np.s_[shots:]))
    target = torch.eye(ways).repeat_interleave(shots, 0)
    penalty = torch.ones(support.shape[2], 1)
    penalty[-1] = 0
    w = torch.zeros(episodes, support.shape[2], ways)
    v, t = w.clone(), 1.0
    for _ in range(150):
        step = (support.transpose(1, 2) @ (torch.softmax(support @ v, 2) - target) + penalty * v) / (ways * shots + 1)
        next_w, next_t = v - step, (1 + math.sqrt(1 + 4 * t * t)) / 2
        v, w, t = next_w + (t - 1) / next_t * (next_w - w), next_w, next_t
    right = (query @ w).argmax(2) == torch.arange(ways).repeat_interleave(queries)
    return 100 * right.float().mean(1).numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--recipe", choices=["ce", "strokes", "colour"], default="ce")
    parser.add_argument("--rows", type=int, default=51200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--widths", type=lambda text: [int(w) for w in text.split(",")], default=[16, 32, 64, 128])
    parser.add_argument("--mixup", type=float, default=0.0, help="alpha of the beta distribution")
    parser.add_argument("--cutmix", type=float, default=0.0, help="probability of a batch")
    parser.add_argument("--bf16", action="store_true", help="the network in bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pictures, labels = read(args.folder / "train")
    begun = time.time()
    net = train(pictures, labels, args)
    seconds = round(time.time() - begun, 1)
    novel, own = read(args.folder / "novel")
    net.eval()
    with torch.no_grad():
        features = F.normalize(torch.cat([net.embed(part) for part in novel.split(128)]), dim=1)
    line = {"data": args.folder.name, "recipe": args.recipe, "rows": args.rows, "seed": args.seed, "widths": args.widths,
            "mixup": args.mixup, "cutmix": args.cutmix, "bf16": args.bf16, "seconds": seconds, "torch": torch.__version__}
    for shots in (1, 5):
        of = score(features, own, shots)
        line[f"{shots}-shot"] = round(float(of.mean()), 2)
        line[f"{shots}-shot interval"] = round(1.96 * float(of.std(ddof=1)) / math.sqrt(len(of)), 2)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
