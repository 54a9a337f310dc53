"""Embeds shards on a Ray cluster: every task a part.

    python on_ray.py MODEL 'web-{000000..000999}.tar' OUT --parts 8 [--gpus 1] [more flags of embed]

The paths are those of a file system that all nodes see. A task that is killed, or that a node takes down with it, is begun
again; finished shards are skipped. A task takes the adapter with the number of the GPU that Ray gives it: see that
`ieq-wgpu devices` lists them in that order.
"""

import argparse
import subprocess
import sys

import ray


class Killed(Exception):
    """The program was ended by a signal, as when a machine runs out of memory."""


@ray.remote(max_retries=5, retry_exceptions=[Killed])
def embed(command, part, parts):
    """The exit code of one part, and what it came to or why it failed."""
    adapters = ray.get_gpu_ids()
    if adapters:
        command = [command[0], "--adapter", str(adapters[0]), *command[1:]]
    done = subprocess.run([*command, "--part", f"{part}/{parts}"], capture_output=True, text=True)
    if done.returncode < 0:
        raise Killed(f"signal {-done.returncode}")
    said = done.stderr.splitlines()[-1:] if done.returncode else done.stdout.splitlines()[:1]
    return done.returncode, " ".join(said)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("shards")
    parser.add_argument("out")
    parser.add_argument("--parts", type=int, required=True)
    parser.add_argument("--gpus", type=int, default=1, help="of each task; 0 on machines without")
    parser.add_argument("--program", default="ieq-wgpu")
    args, more = parser.parse_known_args()
    ray.init()
    command = [args.program, "embed", args.model, "--shards", args.shards, "--out", args.out, *more]
    task = embed.options(num_gpus=args.gpus)
    tasks = {part: task.remote(command, part, args.parts) for part in range(1, args.parts + 1)}
    worst = 0
    for part, running in tasks.items():
        try:
            code, said = ray.get(running)
        except (Killed, ray.exceptions.RayError) as error:
            code, said = 3, str(error).splitlines()[-1]
        worst = max(worst, code)
        print(f"part {part}: exit {code}: {said}", flush=True)
    sys.exit(worst)


if __name__ == "__main__":
    main()
