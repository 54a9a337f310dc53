"""Writes the files of this folder: `python tests/pytorch/make.py`, with torch, numpy and safetensors.

One narrow network, saved in the ways that programs save networks, and in expected.safetensors what is in it: its weights
in float32, pictures of 0 to 255, and their embeddings and class logits. make_episodes.py writes the other file.
"""

import argparse
import collections
import pathlib
import sys

import torch
from safetensors.torch import save_file

FOLDER = pathlib.Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent.parent / "examples"))
from resnet12 import Network  # noqa: E402

ABOUT = {
    "backbone": "resnet12", "widths": [2, 2, 4, 4], "classes": 5, "transforms": 4, "projection": 6, "side": 32,
    "mean": [0.5071, 0.4867, 0.4408], "std": [0.2675, 0.2565, 0.2761],
}


def network():
    torch.manual_seed(0)
    net = Network(ABOUT)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if name.endswith(("running_mean", "bias")):
                value.normal_(0, 0.2)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif name.endswith("num_batches_tracked"):
                value.fill_(7)
            # Exact in half precision, so that every file holds the same numbers.
            value.copy_(value.half()) if value.is_floating_point() else None
    return net.eval()


def main():
    net = network()
    state = net.state_dict()
    pictures = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        features = net.embed(pictures)
        logits = net.classifier(features)
    weights = {f"weights/{name}": value.clone() for name, value in state.items() if value.is_floating_point()}
    save_file({**weights, "pictures": pictures.float(), "features": features, "logits": logits}, FOLDER / "expected.safetensors")

    save = lambda value, name, **how: torch.save(value, FOLDER / name, **how)
    save(state, "plain.pth")
    # The method's authors': the network of several GPUs, an optimiser, and the format from before 1.6.
    optimiser = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
    net.classifier(net(net.normalised(pictures))).sum().backward()
    optimiser.step()
    net.load_state_dict({name: weights.get(f"weights/{name}", state[name]) for name in state})
    small = optimiser.state_dict() | {"state": dict(list(optimiser.state_dict()["state"].items())[:1])}
    wrapped = collections.OrderedDict((f"module.{name}", value) for name, value in state.items())
    save({"epoch": 65, "optimizer": small, "model": wrapped}, "authors.pth", _use_new_zipfile_serialization=False)
    # Lightning's, in half precision, of a module in which the network is a part.
    lightning = {f"encoder.{name}": value.half() if value.is_floating_point() else value for name, value in state.items()}
    lightning["criterion.weight"] = torch.full((2,), float("-inf"))
    save(
        {
            "epoch": 3, "pytorch-lightning_version": "2.4.0", "state_dict": lightning, "loops": {"fit_loop": {}},
            "hyper_parameters": argparse.Namespace(lr=0.1, folder=pathlib.PurePosixPath("runs")), "lr_schedulers": [],
        },
        "lightning.pth",
    )
    # timm's: the averaged network counts; in bfloat16, whose eight bits of the numbers the others do not have.
    average = {name: value.bfloat16() if value.is_floating_point() else value for name, value in state.items()}
    other = {name: value * 0 for name, value in state.items()}
    save({"arch": "resnet12", "state_dict": other, "state_dict_ema": average, "args": argparse.Namespace(x=1)}, "timm.pth")
    # Compiled, in double precision, and every tensor a view of one storage, the weights of the first with other strides.
    floats = [(name, value.double()) for name, value in state.items() if value.is_floating_point()]
    flat = torch.cat([torch.zeros(5, dtype=torch.float64), *(value.flatten() for _, value in floats)])
    views, at = {}, 5
    for name, value in floats:
        views[f"_orig_mod.{name}"] = flat[at : at + value.numel()].view(value.shape)
        at += value.numel()
    name = "_orig_mod.layer1.0.conv2.weight"
    views[name] = views[name].contiguous(memory_format=torch.channels_last)
    views["_orig_mod.classifier.weight"] = torch.nn.Parameter(views["_orig_mod.classifier.weight"].t().contiguous().t())
    save({"model": views}, "views.pth")
    # Not a state dict.
    save(net, "module.pth")
    # The names of other few-shot programs.
    renamed = {
        "encoder." + name.replace(".0.", ".", 1): value for name, value in state.items() if name.startswith("layer")
    } | {name.replace("classifier", "fc"): value for name, value in state.items() if name.startswith("classifier")}
    save({"model": "meta-baseline", "model_sd": renamed}, "other.pth")


if __name__ == "__main__":
    main()
