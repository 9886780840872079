"""Time and memory of segmentation by nearest patches: ``python benchmarks/segmentation_knn.py FOLDER``.

FOLDER is a segmentation set in ADE20K's layout. Its training images are the bank, once and repeated; its validation
images are scored, more and more of them. Time must grow as they do, and memory not with the bank: counted is memory of
the process's own (RssAnon), not pages of the kept features, which the system may drop.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from timing import header, machine, row

from cim_bench.data.segmentation import SegmentationSet
from cim_bench.engine.features import FeatureFile, extract_features
from cim_bench.evals.segmentation.knn import SegmentationKNN
from cim_bench.evals.segmentation.patches import Bank, Patches
from cim_bench.evals.segmentation.sets import PreparedMasks, Squash
from cim_bench.models.backbone import Backbone
from cim_bench.spec import Arch, Data, Machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="images/ and annotations/ with training/ and validation/")
    parser.add_argument("--bank", type=int, default=48, help="training images")
    parser.add_argument("--repeats", type=int, nargs="*", default=[1, 2, 4], help="how often the bank is repeated")
    parser.add_argument("--scored", type=int, nargs="*", default=[30, 60, 120], help="validation images")
    parser.add_argument("--width", type=int, default=192, help="of the ViT, whose weights are random")
    options = parser.parse_args()
    torch.set_num_threads(1)
    arch = Arch(name="vit_tiny_patch16_224", options={"embed_dim": options.width, "num_heads": 3, "depth": 2})
    with tempfile.TemporaryDirectory() as folder:
        train, val = (
            kept(Path(folder), options.folder, split, count, Backbone(arch).eval())
            for split, count in (("train", options.bank), ("val", max(options.scored)))
        )
        largest = repeated(train, max(options.repeats), Path(folder))
        scaling = largest.scaling(range(len(train.tokens)))
        print(f"{machine()}; {arch}, k 1, 3, 10, 30 by cosine and L2\n")
        print(header("bank, patches", "scored images", "CPU seconds", "ms an image", "own memory at its peak, MB"))
        for times in options.repeats:
            places = range(times * len(train.tokens))
            bank = Bank(largest, places, largest.majority(), scaling, fill=False, device=torch.device("cpu"))
            for scored in options.scored:
                with peak_memory() as peak:
                    start = time.process_time()
                    for _ in bank.predict(val, range(scored), (1, 3, 10, 30), ("cosine", "L2")):
                        pass
                    seconds = time.process_time() - start
                print(
                    row(f"{len(bank):,}", scored, seconds, 1000 * seconds / scored, f"{peak[0] / 1e6:,.0f}"), flush=True
                )


def kept(folder: Path, root: Path, split: str, count: int, model: Backbone) -> Patches:
    """Tokens and labels of the first images of a split, on disk."""
    recipe = SegmentationKNN()
    images = SegmentationSet(Data(name="masks", root=str(root)), split).take(range(count))
    file = FeatureFile(folder, split, count)
    prepared = PreparedMasks(images, Squash(recipe.size))
    quiet = Machine(device="cpu", workers=0, micro_batch=16)
    extract_features(
        {"m": recipe.extractor(model)}, {"m": file}, {"m": recipe.transform(model)}, prepared, machine=quiet
    )
    return Patches.of(file.read())


def repeated(patches: Patches, times: int, folder: Path) -> Patches:
    """A set that is larger by a factor, on disk."""
    made = []
    for name, values in (("tokens", patches.tokens), ("labels", patches.labels)):
        np.save(folder / f"large-{name}.npy", np.concatenate([values] * times))
        made.append(np.load(folder / f"large-{name}.npy", mmap_mode="r"))
    return Patches(*made)


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """The most memory of this process's own, in bytes, above what it had before."""
    before, peak, over = own_memory(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            peak[0] = max(peak[0], own_memory() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def own_memory() -> int:
    """RssAnon in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
