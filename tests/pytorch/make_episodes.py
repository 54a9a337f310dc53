"""Writes episodes.safetensors and mixed_test.pickle: `python tests/pytorch/make_episodes.py`, with numpy and safetensors.

The episodes of the method's authors' evaluation (Rizve et al., CVPR 2021) on a set of 7 classes of 23 to 29 images whose
order is mixed: NumPy's legacy generator, seeded with the episode's number, chooses 5 classes, and of each class first the
support and then, out of the others, the queries. Positions are those of the images in the set. The pickle is that set, in
the field's form: pictures of 2 x 2, whose first pixel is their position, and labels that are neither sorted nor contiguous.
"""

import pathlib
import pickle

import numpy as np
from safetensors.numpy import save_file


def episodes(labels, ways, shots, queries, n):
    by_class = {}
    for position, label in enumerate(labels):
        by_class.setdefault(label, []).append(position)
    all_episodes = []
    for seed in range(n):
        np.random.seed(seed)
        episode = []
        for label in np.random.choice(list(by_class), ways, False):
            own = np.array(by_class[label])
            support = np.random.choice(len(own), shots, False)
            query = np.random.choice(np.setxor1d(np.arange(len(own)), support), queries, False)
            episode.append(np.concatenate([own[support], own[query]]))
        all_episodes.append(np.stack(episode))
    return np.stack(all_episodes).astype(np.int32)


rng = np.random.RandomState(1)
labels = rng.permutation(np.repeat(np.arange(7), [23, 24, 25, 26, 27, 28, 29]))
save_file(
    {
        "labels": labels.astype(np.int32),
        "1shot": episodes(labels, 5, 1, 15, 40),
        "5shot": episodes(labels, 5, 5, 15, 40),
        "last": episodes(labels, 5, 1, 15, 600)[-1:],
    },
    pathlib.Path(__file__).parent / "episodes.safetensors",
)

pixels = np.zeros((len(labels), 2, 2, 3), np.uint8)
pixels[:, 0, 0, 0] = np.arange(len(labels))
numbers = [70, 5, 61, 12, 99, 33, 8]
with open(pathlib.Path(__file__).parent / "mixed_test.pickle", "wb") as file:
    pickle.dump({"data": pixels, "labels": [numbers[label] for label in labels]}, file, protocol=2)
