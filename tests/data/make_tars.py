#!/usr/bin/env python3
"""Writes `tars.zip`: tar archives of the same few pictures by Python's tarfile and by GNU tar, in every format of theirs.

Needs Pillow and GNU tar. The tests need neither: run this only to add a case, and look at what changed.
"""
import io, os, subprocess, tarfile, tempfile, zipfile
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
TMP = tempfile.mkdtemp()
LONG = "x" * 180 + ".png"
DEEP = "y" * 80 + "/" + "z" * 90 + ".png"


def picture(seed):
    out = io.BytesIO()
    pixels = bytes(c for y in range(4) for x in range(4) for c in (seed, 7 * x, 5 * y + x))
    Image.frombytes("RGB", (4, 4), pixels).save(out, "PNG")
    return out.getvalue()


def tree(root, names):
    for seed, name in names:
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(picture(seed))


def gnu(root, *flags):
    command = ["tar", "-c", "-b1", "--sort=name", "--mtime=@1000000000", "--owner=a:1", "--group=b:2", "--mode=0644"]
    return subprocess.run([*command, *flags, "."], cwd=root, stdout=subprocess.PIPE, check=True).stdout


def python(names, mode="w", mtime=1000000000, **options):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, bufsize=512, **options) as archive:
        for seed, name in names:
            data = picture(seed)
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uname, info.gname = len(data), mtime, "bigdata", "bigdata"
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


SHORT = [(1, "cat/1.png"), (2, "cat/2.png"), (11, "dog/1.png"), (12, "größe q/1.png")]
BOTH = SHORT + [(13, "größe q/" + DEEP)]
ALL = BOTH + [(14, "größe q/" + LONG)]
out = {}
for name, names in [("v7", SHORT), ("ustar", BOTH), ("oldgnu", ALL), ("gnu", ALL), ("posix", ALL)]:
    root = os.path.join(TMP, name)
    tree(root, names)
    out[f"gnu_{name}.tar"] = gnu(root, f"--format={name}")
out["python_ustar.tar"] = python(BOTH, format=tarfile.USTAR_FORMAT)
out["python_gnu.tar"] = python(ALL, format=tarfile.GNU_FORMAT)
out["python_pax.tar"] = python(ALL, format=tarfile.PAX_FORMAT)
# As webdataset writes: a stream, and a time with a fraction, which makes a list of attributes before every member.
out["python_stream.tar"] = python(ALL, mode="w|", mtime=1000000000.25)

# Before and behind the sparse file, whose 40 parts do not fit into one header, lie whole ones.
root = os.path.join(TMP, "sparse")
tree(root, [(1, "cat/1.png"), (2, "cat/2.png"), (11, "dog/1.png"), (12, "dog/3.png")])
with open(os.path.join(root, "dog/2.png"), "wb") as f:
    f.write(picture(13))
    for part in range(1, 40):
        f.seek(part << 20)
        f.write(b"a" * 4096)
    f.truncate(41 << 20)
for name, flags in [
    ("gnu", ["--format=gnu"]),
    ("oldgnu", ["--format=oldgnu"]),
    ("posix00", ["--format=posix", "--sparse-version=0.0"]),
    ("posix01", ["--format=posix", "--sparse-version=0.1"]),
    ("posix10", ["--format=posix", "--sparse-version=1.0"]),
]:
    out[f"sparse_{name}.tar"] = gnu(root, "-S", *flags)

root = os.path.join(TMP, "links")
tree(root, [(1, "cat/1.png"), (2, "cat/2.png"), (11, "dog/1.png")])
os.link(os.path.join(root, "cat/2.png"), os.path.join(root, "cat/3.png"))
os.symlink("1.png", os.path.join(root, "dog/2.png"))
os.mkfifo(os.path.join(root, "dog/3.png"))
for name in ["ustar", "gnu", "posix"]:
    out[f"links_{name}.tar"] = gnu(root, f"--format={name}")

with zipfile.ZipFile(os.path.join(HERE, "tars.zip"), "w", zipfile.ZIP_DEFLATED) as archive:
    for name, data in sorted(out.items()):
        entry = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
        entry.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(entry, data)
