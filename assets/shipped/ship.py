#!/usr/bin/env python3
"""The network of a run as it is shipped: half precision, no training state, no classifier, no paths.

    assets/shipped/ship.py runs/strokes/checkpoint.safetensors assets/shipped/strokes.safetensors
"""

import json
import struct
import sys
from pathlib import Path

# Tensors of the training state and of the classifier, whose classes are nobody else's, begin so; metadata that says what
# the network is.
LEFT_OUT = ("train.", "classifier.")
KEPT = ("format", "config", "classes", "side", "images", "step", "similarities")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    content = Path(sys.argv[1]).read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    metadata = header.pop("__metadata__")
    metadata = {key: metadata[key] for key in KEPT if key in metadata}
    config = json.loads(metadata["config"])
    config["data"]["source"] = Path(config["data"]["source"]).name
    config["run"].update(out=None, init=None)
    metadata["config"] = json.dumps(config, separators=(",", ":"))
    tensors, body = {"__metadata__": metadata}, bytearray()
    for name, tensor in sorted(header.items()):
        if name.startswith(LEFT_OUT):
            continue
        begin, end = tensor["data_offsets"]
        values = data[begin:end]
        if tensor["dtype"] == "F32":
            # A running variance of a dead channel may be below the smallest half, which is then 0, as good as it.
            values = struct.pack(f"<{len(values) // 4}e", *struct.unpack(f"<{len(values) // 4}f", values))
            tensor["dtype"] = "F16"
        tensor["data_offsets"] = [len(body), len(body) + len(values)]
        tensors[name] = tensor
        body += values
    text = json.dumps(tensors, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    Path(sys.argv[2]).write_bytes(struct.pack("<Q", len(text)) + text + body)
    print(f"{sys.argv[2]}: {8 + len(text) + len(body):,} bytes")


if __name__ == "__main__":
    main()
