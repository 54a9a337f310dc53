"""Writes PREFIX.zip with small pickles and .npz files: `python make_pickles.py PREFIX`, once per version of NumPy.

Every file holds the same six images of 2 x 2 pixels and the labels 30 7 7 30 500 7 (or names made of them), as
tests/data.rs expects them; what differs is how Python and NumPy wrote them. Python 3.11, NumPy 1.26.4 and 2.4.6.
"""
import collections, datetime, decimal, gzip, io, os, pathlib, pickle, sys, uuid, zipfile
import numpy as np

prefix, here = sys.argv[1], os.path.dirname(os.path.abspath(__file__))
x = (np.arange(6 * 2 * 2 * 3) * 37 % 256).astype(np.uint8).reshape(6, 2, 2, 3)
y = [30, 7, 7, 30, 500, 7]


archive = zipfile.ZipFile(os.path.join(here, f"{prefix}.zip"), "w", zipfile.ZIP_DEFLATED)


def write(name, value, protocol=4):
    content = value if isinstance(value, bytes) else pickle.dumps(value, protocol=protocol)
    archive.writestr(zipfile.ZipInfo(f"{name}.pkl"), content, zipfile.ZIP_DEFLATED)


def write_npz(name, save=np.savez, **arrays):
    content = io.BytesIO()
    save(content, **arrays)
    archive.writestr(zipfile.ZipInfo(f"{name}.npz"), content.getvalue(), zipfile.ZIP_DEFLATED)


class Record(dict):
    pass


Record.__module__ = "some_project.records"
sys.modules["some_project"] = sys.modules["some_project.records"] = type(sys)("some_project.records")
sys.modules["some_project.records"].Record = Record

for protocol in range(6):
    write(f"protocol{protocol}", {"data": x, "labels": y}, protocol)
    write(f"scalars{protocol}", {"data": x, "labels": [np.int64(n) for n in y], "a": np.str_("cat"), "b": np.bool_(True),
          "c": np.float32(0.5), "d": np.datetime64("2020-01-01"), "e": np.float64(2), "f": np.bytes_(b"cat")}, protocol)
write("fortran", {"data": np.asfortranarray(x), "labels": y}, 5)
write("planes", {"data": np.ascontiguousarray(x.transpose(0, 3, 1, 2)), "labels": y}, 5)
write("transposed4", {"data": np.ascontiguousarray(x.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2), "labels": y}, 4)
write("transposed5", {"data": np.ascontiguousarray(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1), "labels": y}, 5)
write("strided", {"data": np.repeat(x, 2, 0)[::2], "labels": np.repeat(y, 2)[::2]}, 5)
write("int64", {"data": x.astype(np.int64), "labels": np.array(y, np.int16)}, 4)
write("big_endian", {"data": x.astype(">u2"), "labels": np.array(y, ">i4")}, 5)
write("column", {"data": x, "labels": np.array(y)[:, None]}, 5)
write("float_labels", {"data": x, "labels": np.array(y, np.float64)}, 4)
write("labels_of_arrays", {"data": x, "labels": [np.array([n]) for n in y]}, 4)
write("bytes_keys", {b"data": x, b"labels": y}, 2)
write("gzipped", gzip.compress(pickle.dumps({"data": x, "labels": y}), mtime=0))
write("pair", (x, y))
write("cifar", {b"batch_label": b"one", b"data": x, b"fine_labels": y, b"coarse_labels": [0] * 6, b"filenames": [b"a"] * 6}, 2)
write("ordered", collections.OrderedDict([("data", x), ("labels", y)]), 3)
write("default", collections.defaultdict(list, {"data": x, "labels": y}), 2)
write("subclass", Record({"data": x, "labels": y}), 4)
write("subclass0", Record({"data": x, "labels": y}), 0)
write("around", {"data": x, "labels": y, "path": pathlib.PurePosixPath("/a/b"), "when": datetime.datetime(2020, 1, 1),
      "set": {1, 2}, "frozen": frozenset([1]), "big": 2 ** 80, "ratio": 0.5, "none": None, "id": uuid.UUID(int=5),
      "money": decimal.Decimal("1.5"), "complex": 1j, "range": range(3), "count": collections.Counter("aab"),
      "kind": np.dtype("int32"), "type": np.float32, "names": np.array(["a", "b"]), "objects": np.array([None, "a"], object)}, 4)
# The same as names.
names = [f"n{n:03}" for n in y]
write("names", {"data": x, "labels": names}, 4)
write("names_str_", {"data": x, "labels": [np.str_(n) for n in names]}, 5)
write("names_array", {"data": x, "labels": np.array(names)}, 4)
write("names_bytes", {"data": x, "labels": np.array(names, "S")}, 4)
write("names_object", {"data": x, "labels": np.array(names, object)}, 5)
classes = {n: [i for i, m in enumerate(names) if m == n] for n in names}
write("names_cache", {"image_data": x, "class_dict": classes}, 2)
write("names_cache_arrays", {"image_data": x, "class_dict": {k: np.array(v) for k, v in classes.items()}}, 5)
write_npz("plain", images=x, labels=np.array(y))
write_npz("compressed", np.savez_compressed, data=x, label=np.array(y, np.uint16)[:, None])
write_npz("fortran", images=np.asfortranarray(x), labels=np.array(y, ">i4"))
write_npz("medmnist_names", image=x.transpose(0, 3, 1, 2).copy("F"), y=np.array(y, np.float32))
write_npz("wide", x=x.astype(np.int32), targets=np.array(y))
write_npz("names_text", images=x, labels=np.array(names))
write_npz("names_bytes", images=x, labels=np.array(names, "S"))
write_npz("names_object", images=x, labels=np.array(names, object))
archive.close()
