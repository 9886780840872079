"""Random networks with BatchNorm statistics of images: by hand, and what a job's key rests on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cim_bench.benchmark import Benchmark, RandomInit
from cim_bench.data.images import ImageSet
from cim_bench.data.transforms import EvalTransform
from cim_bench.evals.knn import KNN
from cim_bench.executors.local import LocalExecutor
from cim_bench.jobs.calibration import PASS, calibrate
from cim_bench.jobs.runner import Runner
from cim_bench.jobs.subjects import random_checkpoint, random_start
from cim_bench.models.backbone import Backbone
from cim_bench.records.store import read_records
from cim_bench.spec import Arch, Data, Machine

ARCH = Arch(name="resnet10t", image_size=32, options={"channels": (8, 16, 32, 64), "stem_width": 8})
FRESH = RandomInit(arch=ARCH)
CALIBRATED = replace(FRESH, calibrate=40)


@pytest.fixture
def images(small_photos: Data) -> ImageSet:
    return ImageSet(small_photos, "train")


def test_first_layer_by_hand(images: ImageSet) -> None:
    """One pass: mean and unbiased variance of the first convolution's output over 40 evenly spread images of 48."""
    start = random_checkpoint(FRESH, 0).state
    state = calibrate(ARCH, start, images, 40)
    model = Backbone(ARCH)
    model.net.load_state_dict(start)
    places = [place * 48 // 40 for place in range(40)]
    pixels = torch.stack([EvalTransform(32, 1.0)(images.read(place)[0]) for place in places]).float() / 255
    first = model.net.conv1[0](model.normalize(pixels)).transpose(0, 1).flatten(1)
    assert torch.allclose(state["conv1.1.running_mean"], first.mean(dim=1), atol=1e-5)
    assert torch.allclose(state["conv1.1.running_var"], first.var(dim=1), rtol=1e-4)


def test_nothing_else_moves(images: ImageSet) -> None:
    start = random_checkpoint(FRESH, 0).state
    state = calibrate(ARCH, start, images, 1000)  # more than there are: all
    assert state.keys() == start.keys()
    moved = {name for name in start if not torch.equal(state[name], start[name])}
    assert {name.rpartition(".")[2] for name in moved} == {"running_mean", "running_var", "num_batches_tracked"}


def test_several_passes_are_averaged_and_each_is_spread_over_the_set(
    images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PASS == 64
    start = random_checkpoint(FRESH, 0).state
    monkeypatch.setattr("cim_bench.jobs.calibration.PASS", 24)
    whole = calibrate(ARCH, start, images, 48)["conv1.1.running_var"]
    halves = [calibrate(ARCH, start, images.take(range(first, 48, 2)), 24)["conv1.1.running_var"] for first in (0, 1)]
    assert torch.allclose(whole, (halves[0] + halves[1]) / 2, rtol=1e-5)


def test_identity_needs_no_pass(small_photos: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """It rests on weights, number and images; last digits of sums, which machines differ in, do not count."""
    calibrated = random_checkpoint(CALIBRATED, 0, small_photos).meta
    monkeypatch.setattr("cim_bench.jobs.subjects.calibrate", lambda *_: pytest.fail("a pass over images"))
    assert random_start(CALIBRATED, 0, small_photos).meta == calibrated
    others = [FRESH, replace(CALIBRATED, calibrate=39)]
    hashes = {calibrated.hash, *(random_start(other, 0, small_photos).meta.hash for other in others)}
    assert len(hashes) == 3
    assert random_start(FRESH, 0).meta.hash == random_start(FRESH, 0, small_photos).meta.hash
    assert calibrated.passed == {"calibrate": 40}


def test_a_row_of_its_own(small_photos: Data, cpu: Machine, tmp_path: Path) -> None:
    benchmark = Benchmark(
        name="toys",
        subjects={"Scratch": FRESH, "Random": CALIBRATED},
        evaluators={"knn": KNN(k=(5,), feature="pool", crop_pct=1.0)},
        data=small_photos,
        machine=cpu,
        executor=LocalExecutor(slots=1),
    )
    assert {result.status for result in Runner(benchmark, tmp_path).run().values()} == {"done"}
    found = {record.subject.name: record for record in read_records(tmp_path)}
    assert found["Random"].key != found["Scratch"].key
    assert found["Random"].subject.passed == {"calibrate": 40}
    assert {result.status for result in Runner(benchmark, tmp_path).run().values()} == {"skipped"}


def test_a_network_without_batchnorm(tiny_arch: Arch, small_photos: Data) -> None:
    with pytest.raises(ValueError, match=r"RandomInit.calibrate is 8, and vit_.* has no BatchNorm; set it to 0"):
        random_checkpoint(RandomInit(arch=tiny_arch, calibrate=8), 0, small_photos)
