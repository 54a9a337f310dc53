"""The networks of ieq-wgpu in PyTorch, for weights that `ieq-wgpu export` wrote.

    ieq-wgpu export runs/demo --to pth --out net.pth          # or --to safetensors
    python examples/resnet12.py net.pth picture.png ...       # prints an embedding per picture

    from resnet12 import load
    net = load("net.pth")                                     # in evaluation mode
    features = net.embed(images)                              # uint8, [N, 3, side, side], RGB

The state dict has the names of the method's authors (Rizve et al., CVPR 2021). `load` builds the network from what the file
says of it and takes the weights with load_state_dict(strict=True). Input of `forward` is normalised:
(images / 255 - mean) / std, per channel, RGB, with the mean and std of the training images that the file names; `embed`
does that. Pictures that are no squares of `side` pixels are squeezed to it by their middle square, as ieq-wgpu does.

Needs torch; for .safetensors also safetensors, for pictures Pillow and numpy.
"""

import json
import sys

import torch
from torch import nn


class Block(nn.Module):
    """Three 3x3 convolutions beside a 1x1 one, then 2x2 max pooling."""

    def __init__(self, inputs, outputs):
        super().__init__()
        for i in (1, 2, 3):
            self.add_module(f"conv{i}", nn.Conv2d(inputs if i == 1 else outputs, outputs, 3, padding=1, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(outputs))
        self.relu = nn.LeakyReLU(0.1)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.maxpool = nn.MaxPool2d(2)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.maxpool(self.relu(y + self.downsample(x)))


def plain_block(inputs, outputs):
    """A block of Conv4."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2))


def head(inputs, outputs):
    """The transform head and the invariance head."""
    layer = lambda: [nn.Linear(inputs, inputs), nn.BatchNorm1d(inputs), nn.ReLU()]
    return nn.Sequential(*layer(), *layer(), nn.Linear(inputs, outputs))


class Network(nn.Module):
    """ResNet-12 or Conv4 with its heads. `about` has backbone, widths, classes, transforms, projection, side, mean, std."""

    def __init__(self, about):
        super().__init__()
        self.about = about
        widths, is_resnet = about["widths"], about["backbone"] == "resnet12"
        for i, (inputs, outputs) in enumerate(zip([3, *widths], widths), 1):
            block = nn.Sequential(Block(inputs, outputs)) if is_resnet else plain_block(inputs, outputs)
            self.add_module(f"layer{i}", block)
        self.blocks = len(widths)
        self.pool = nn.AdaptiveAvgPool2d(1) if is_resnet else nn.Identity()
        d = widths[-1] if is_resnet else widths[-1] * (about["side"] >> len(widths)) ** 2
        self.classifier = nn.Linear(d, about["classes"])
        if about["transforms"] is not None:
            self.eq_head = head(d, about["transforms"])
        if about["projection"] is not None:
            self.inv_head = head(d, about["projection"])

    def forward(self, x):
        """Embeddings of normalised images [N, 3, side, side]: [N, d]."""
        for i in range(1, self.blocks + 1):
            x = self.get_submodule(f"layer{i}")(x)
        return self.pool(x).flatten(1)

    def normalised(self, images):
        """Images of 0 to 255 as `forward` takes them."""
        mean, std = (torch.tensor(self.about[key]).reshape(3, 1, 1) for key in ("mean", "std"))
        return (images.float() / 255 - mean) / std

    @torch.no_grad()
    def embed(self, images):
        """Embeddings of images of 0 to 255."""
        return self(self.normalised(images))


def load(path):
    """The network in a file that `ieq-wgpu export` wrote, in evaluation mode."""
    if str(path).endswith(".safetensors"):
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            metadata, state = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    else:
        content = torch.load(path, map_location="cpu", weights_only=True)
        metadata, state = content["metadata"], content["model"]
    network = Network(json.loads(metadata["network"]))
    network.load_state_dict(state, strict=True)
    return network.eval()


def main(path, *pictures):
    import numpy
    from PIL import Image

    network = load(path)
    side = network.about["side"]
    for picture in pictures:
        image = Image.open(picture).convert("RGB")
        least = min(image.size)
        left, top = (image.width - least) // 2, (image.height - least) // 2
        image = image.crop((left, top, left + least, top + least)).resize((side, side), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(numpy.array(image)).permute(2, 0, 1)[None]
        print(picture, *(f"{value:.6g}" for value in network.embed(pixels)[0].tolist()))


if __name__ == "__main__":
    main(*sys.argv[1:])
