"""Convolutions and one training step in PyTorch; a JSON line for each time.

    python peer_torch.py conv:16x64x32x32:64:3 step:16,32,64,128:64:32 --samples 5

The same work as benches/peers/burn/src/main.rs. On the GPU where PyTorch has one, in f32 and with products in TF32, else
on the CPU.
"""

import json
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

CLASSES, TRANSFORMS, PROJECTION, NEGATIVES = 64, 16, 64, 6400
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WHERE = DEVICE if DEVICE == "cuda" else f"cpu, threads {torch.get_num_threads()}"
# Products in TF32 keep ten bits of each factor.
MODES = [False, True] if DEVICE == "cuda" else [False]


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        conv = lambda c_in, kernel: nn.Conv2d(c_in, outputs, kernel, padding=kernel // 2, bias=False)
        self.convs = nn.ModuleList([conv(inputs, 3), conv(outputs, 3), conv(outputs, 3)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs) for _ in range(3)])
        self.shortcut = nn.Sequential(conv(inputs, 1), nn.BatchNorm2d(outputs))

    def forward(self, x):
        h = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            h = norm(conv(h))
            if i < 2:
                h = F.leaky_relu(h, 0.1)
        return F.max_pool2d(F.leaky_relu(h + self.shortcut(x), 0.1), 2)


def head(width, outputs):
    layer = lambda: [nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*layer(), *layer(), nn.Linear(width, outputs))


class Net(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.blocks = nn.Sequential(*[Block(i, o) for i, o in zip([3, *widths], widths)])
        self.classifier = nn.Linear(widths[3], CLASSES)
        self.transform, self.invariant = head(widths[3], TRANSFORMS), head(widths[3], PROJECTION)

    def forward(self, x):
        feature = self.blocks(x).mean((2, 3))
        return self.classifier(feature), self.transform(feature), self.invariant(feature)


def wait():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def report(what, kind, flops, samples, work):
    for _ in range(2):
        work()
    wait()
    begun = time.perf_counter()
    work()
    wait()
    repeats = max(1, min(1000, int(0.05 / (time.perf_counter() - begun)) + 1))
    times = []
    for _ in range(samples):
        begun = time.perf_counter()
        for _ in range(repeats):
            work()
        wait()
        times.append((time.perf_counter() - begun) / repeats)
    times.sort()
    median = times[len(times) // 2]
    mode = ", TF32" if torch.backends.cudnn.allow_tf32 else ""
    print(json.dumps({"peer": f"torch {torch.__version__} ({WHERE}{mode})", "what": what, "pass": kind, "median": median,
                      "min": times[0], "max": times[-1], "gflops": flops / median / 1e9}), flush=True)


def convolution(what, words, samples):
    n, c, h, w = map(int, words[1].split("x"))
    outputs, kernel = int(words[2]), int(words[3])
    flops = 2.0 * n * outputs * h * w * c * kernel * kernel
    x = torch.randn(n, c, h, w, device=DEVICE, requires_grad=True)
    weight = torch.randn(outputs, c, kernel, kernel, device=DEVICE, requires_grad=True)
    upstream = torch.randn(n, outputs, h, w, device=DEVICE)

    def forward():
        with torch.no_grad():
            F.conv2d(x, weight, padding=kernel // 2)

    def both():
        torch.autograd.grad(F.conv2d(x, weight, padding=kernel // 2), (x, weight), upstream)

    report(what, "forward", flops, samples, forward)
    report(what, "forward and backward", 3 * flops, samples, both)


def step(what, words, samples):
    widths = list(map(int, words[1].split(",")))
    rows, side = int(words[2]), int(words[3])
    batch = rows // TRANSFORMS
    net = Net(widths).to(DEVICE)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    x = torch.randn(rows, 3, side, side, device=DEVICE)
    classes = torch.arange(rows, device=DEVICE) % CLASSES
    transforms = torch.arange(rows, device=DEVICE) % TRANSFORMS
    bank = F.normalize(torch.randn(batch, PROJECTION, device=DEVICE))
    negatives = F.normalize(torch.randn(NEGATIVES, PROJECTION, device=DEVICE))

    def work():
        a, b, z = net(x)
        z = F.normalize(z)
        anchors = torch.cat([bank, z[:batch].repeat(TRANSFORMS - 1, 1)])
        scores = torch.cat([(anchors * z).sum(1, keepdim=True), z @ negatives.T], 1)
        contrast = F.cross_entropy(scores, torch.zeros(rows, dtype=torch.long, device=DEVICE))
        loss = F.cross_entropy(a, classes) + F.cross_entropy(b, transforms) + contrast
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        assert torch.isfinite(loss), loss

    report(what, "step", 0.0, samples, work)


def main(arguments):
    samples = 5
    if "--samples" in arguments:
        at = arguments.index("--samples")
        samples = int(arguments[at + 1])
        del arguments[at:at + 2]
    torch.manual_seed(0)
    for what in arguments:
        words = what.split(":")
        for tf32 in MODES:
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
            {"conv": convolution, "step": step}[words[0]](what, words, samples)


main(sys.argv[1:])
