"""Embeds shards on a Ray cluster: every task a part.

    python on_ray.py MODEL 'web-{000000..000999}.tar' OUT --parts 8 [--gpus 1] [more flags of embed]

The paths are those of a file system that all nodes see. A task that a node takes down with it is begun again elsewhere;
finished shards are skipped.
"""

import argparse
import subprocess
import sys

import ray


@ray.remote(max_retries=5)
def embed(command, part, parts):
    """The exit code of one part, and what it came to or why it failed."""
    done = subprocess.run([*command, "--part", f"{part}/{parts}"], capture_output=True, text=True)
    if done.returncode < 0:
        raise RuntimeError(f"part {part} ended by signal {-done.returncode}")
    said = done.stderr.splitlines()[-1:] if done.returncode else done.stdout.splitlines()[:1]
    return done.returncode, " ".join(said)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("shards")
    parser.add_argument("out")
    parser.add_argument("--parts", type=int, required=True)
    parser.add_argument("--gpus", type=float, default=1, help="of each task; 0 on machines without")
    parser.add_argument("--program", default="ieq-wgpu")
    args, more = parser.parse_known_args()
    ray.init()
    command = [args.program, "embed", args.model, "--shards", args.shards, "--out", args.out, *more]
    task = embed.options(num_gpus=args.gpus)
    parts = range(1, args.parts + 1)
    results = ray.get([task.remote(command, part, args.parts) for part in parts])
    for part, (code, said) in zip(parts, results):
        print(f"part {part}: exit {code}: {said}")
    sys.exit(max(code for code, _ in results))


if __name__ == "__main__":
    main()
