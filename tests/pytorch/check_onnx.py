"""Compares plain.onnx with PyTorch's embeddings: `python tests/pytorch/check_onnx.py`, with onnx, onnxruntime, safetensors.

Made by `ieq-wgpu export plain.pth --preset cifar-fs --to onnx --out plain.onnx --overwrite` in this folder.
"""

import pathlib

import numpy
import onnx
import onnxruntime
from safetensors.numpy import load_file

folder = pathlib.Path(__file__).parent
onnx.checker.check_model(folder / "plain.onnx", full_check=True)
expected = load_file(folder / "expected.safetensors")
session = onnxruntime.InferenceSession(folder / "plain.onnx")
for n in (1, 2, 3):
    features = session.run(None, {"images": expected["pictures"][:n]})[0]
    error = numpy.abs(features - expected["features"][:n]).max() / numpy.abs(expected["features"]).max()
    print(f"{n} pictures: largest difference {error:.1e} of the largest number")
    assert error < 1e-5
