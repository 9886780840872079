"""Wall time and decoded images for one model against four on one image set: ``python benchmarks/one_pass.py DATA``.

DATA holds class folders of photographs (e.g. an ImageNet validation folder). Models are small, so that decoding
dominates; rounds alternate, medians are printed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from cim_bench.benchmark import Benchmark, RandomInit
from cim_bench.data.images import ImageSet
from cim_bench.evals.classifier import make_classifier
from cim_bench.evals.shifts import Shift
from cim_bench.executors.local import LocalExecutor
from cim_bench.jobs.runner import Runner
from cim_bench.jobs.subjects import random_checkpoint
from cim_bench.models.backbone import load_backbone
from cim_bench.models.checkpoint import save_checkpoint
from cim_bench.spec import Arch, Data, FromCheckpoint, Machine

ARCH = Arch(
    name="vit_tiny_patch16_224",
    image_size=64,
    options={"patch_size": 16, "embed_dim": 64, "depth": 4, "num_heads": 2},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of class folders")
    parser.add_argument("--models", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    decoded, real = [0], ImageSet.read

    def read(self: ImageSet, index: int) -> object:
        decoded[0] += 1
        return real(self, index)

    ImageSet.read = read  # type: ignore[method-assign, assignment]
    data = Data(name="images", root=str(options.data), val_split=".")
    seconds: dict[int, list[float]] = {count: [] for count in options.models}
    counts: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = [classifier(Path(folder), data, number) for number in range(max(options.models))]
        for turn in range(options.rounds):
            for count in options.models:
                subjects = {f"model{i}": checkpoints[i] for i in range(count)}
                benchmark = Benchmark(
                    name="b",
                    subjects=dict(subjects),
                    evaluators={"shift": Shift(data=data)},
                    data=data,
                    machine=Machine(device="cpu", workers=0, micro_batch=64),
                    executor=LocalExecutor(slots=1),  # reads are counted in this process
                )
                runner = Runner(benchmark, Path(folder) / f"{turn}-{count}")
                decoded[0], started = 0, time.perf_counter()
                assert all(result.status == "done" for result in runner.run().values())
                seconds[count].append(time.perf_counter() - started)
                counts[count] = decoded[0]
    print("| models | images decoded | seconds, median | against the first |\n| --- | --- | --- | --- |")
    base = statistics.median(seconds[options.models[0]])
    for count in options.models:
        middle = statistics.median(seconds[count])
        print(f"| {count} | {counts[count]} | {middle:.1f} | {middle / base:.2f} |")


def classifier(folder: Path, data: Data, seed: int) -> FromCheckpoint:
    """An untrained classifier of the set's classes."""
    checkpoint = random_checkpoint(RandomInit(arch=ARCH), seed)
    classes = ImageSet(data, data.val_split).classes
    net = make_classifier(load_backbone(checkpoint, what="m"), len(classes), drop_path=0.0, head_std=0.02).net
    meta = replace(checkpoint.meta, kind="classifier", classes=classes, global_pool="avg")
    save_checkpoint(folder / f"m{seed}", net.state_dict(), meta)
    return FromCheckpoint(path=str(folder / f"m{seed}"))


if __name__ == "__main__":
    main()
