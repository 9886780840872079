"""k-NN of patches on real images, against CAPI's steps written plainly with scikit-learn."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import jaccard_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.preprocessing import StandardScaler

from cim_bench.benchmark import Benchmark, RandomInit
from cim_bench.contracts.context import Context
from cim_bench.data.segmentation import SegmentationSet
from cim_bench.evals.segmentation.knn import SegmentationKNN
from cim_bench.executors.local import LocalExecutor
from cim_bench.jobs.runner import Runner
from cim_bench.jobs.subjects import random_checkpoint
from cim_bench.models.backbone import Backbone, load_backbone
from cim_bench.records.confusions import read_confusions
from cim_bench.records.predictions import read_prediction
from cim_bench.records.store import read_records
from cim_bench.spec import Arch, Data, Machine
from tests.processes import in_two_processes

SIZE = 64


@pytest.fixture
def recipe(small_masks: Data) -> SegmentationKNN:
    return SegmentationKNN(data=small_masks, size=SIZE, k=(1, 3), tuning=0.25)


@pytest.fixture
def model(tiny_arch: Arch) -> Backbone:
    return load_backbone(random_checkpoint(RandomInit(arch=tiny_arch), 0), what="random")


@pytest.fixture
def context(tiny_arch: Arch, small_photos: Data, cpu: Machine, tmp_path: Path) -> Context:
    meta = random_checkpoint(RandomInit(arch=tiny_arch), 0).meta
    return Context(data=small_photos, machine=cpu, seed=0, folder=tmp_path, subject=meta, key="k")


def arrays(recipe: SegmentationKNN, images: SegmentationSet, model: Backbone, context: Context) -> tuple[Any, Any]:
    """(N, P, D) tokens and (N, P, l) labels from 1, 0 for unlabelled, with libraries alone."""
    tokens, labels = [], []
    with torch.no_grad():
        for index in range(len(images)):
            image, mask = images.read(index)
            pixels = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
            tokens.append(recipe.extractor(model)(torch.from_numpy(pixels.copy())[None])[0].numpy().astype(np.float64))
            squashed = Image.fromarray(mask.numpy()).resize((SIZE, SIZE), Image.Resampling.NEAREST)
            raw = (np.asarray(squashed).astype(int) + 1) % 256
            grid = int(len(tokens[-1]) ** 0.5)
            side = SIZE // grid
            labels.append([
                raw[side * (p // grid) : side * (p // grid + 1), side * (p % grid) : side * (p % grid + 1)].flatten()
                for p in range(grid**2)
            ])  # fmt: skip
    return np.array(tokens), np.array(labels)


def modes(values: np.ndarray) -> np.ndarray:
    """Along the last axis; of several the smallest."""
    counted = np.apply_along_axis(lambda row: np.bincount(row, minlength=256), -1, values)
    return counted.argmax(-1)


def predict(bank: Any, labels: Any, queries: Any, k: int, metric: str) -> np.ndarray:
    """(Q, l): pixel by pixel the most frequent label of k neighbours, as of `KNeighborsClassifier` for each pixel."""
    kept = modes(labels) > 0
    near = NearestNeighbors(n_neighbors=k, metric=metric, algorithm="brute").fit(bank[kept]).kneighbors(queries)[1]
    found = modes(labels[kept][near].transpose(0, 2, 1))
    first = KNeighborsClassifier(k, metric=metric, algorithm="brute").fit(bank[kept], labels[kept][:, 0])
    assert (first.predict(queries) == found[:, 0]).all()
    return found


def score(truth: Any, found: Any) -> float:
    labelled = truth.flatten() > 0
    return float(jaccard_score(truth.flatten()[labelled], found.flatten()[labelled], average="macro"))


def test_choice_and_score_are_those_of_capis_steps(
    recipe: SegmentationKNN, model: Backbone, context: Context, small_masks: Data
) -> None:
    found = {m.metric: m.value for m in recipe.run(model, context)}
    choice = json.loads((context.folder / "choice.json").read_text())
    (train, labels), (val, truth) = (
        arrays(recipe, SegmentationSet(small_masks, split), model, context) for split in ("train", "val")
    )
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0)).tolist()
    tuning, rest = order[:3], order[3:]
    scaler = StandardScaler().fit(train[rest].reshape(-1, train.shape[-1]))

    def scaled(tokens: np.ndarray) -> np.ndarray:
        return np.asarray(scaler.transform(tokens.reshape(-1, tokens.shape[-1])))

    scores = {}
    for told in choice["tuning"]:
        metric = "cosine" if told["distance"] == "cosine" else "euclidean"
        flat = labels.reshape(len(labels), -1, labels.shape[-1])
        answers = predict(
            scaled(train[rest]), np.concatenate(list(flat[rest])), scaled(train[tuning]), told["k"], metric
        )
        scores[told["k"], metric] = score(np.concatenate(list(flat[tuning])), answers)
        assert told["miou"] == pytest.approx(scores[told["k"], metric], abs=1e-6)
    k, metric = max(scores, key=scores.__getitem__)
    chosen = choice["chosen"]
    assert (chosen["k"], {"cosine": "cosine", "L2": "euclidean"}[chosen["distance"]]) == (k, metric)
    order = sorted(order)
    answers = predict(scaled(train[order]), labels.reshape(-1, labels.shape[-1]), scaled(val), k, metric)
    assert found["miou"] == pytest.approx(score(truth, answers), abs=1e-6)


def test_the_confusion_matrices_are_of_the_squashed_masks(
    recipe: SegmentationKNN, model: Backbone, context: Context, small_masks: Data
) -> None:
    list(recipe.run(model, context))
    images = SegmentationSet(small_masks, "val")
    kept = read_confusions(context.folder)
    assert kept.classes == (*images.classes, "(unlabelled)")
    pixels = [int(cells.counts.sum()) for cells in kept.found[()]]
    for index in range(len(images)):
        mask = np.asarray(Image.fromarray(images.read(index)[1].numpy()).resize((SIZE, SIZE), Image.Resampling.NEAREST))
        assert pixels[index] == (mask != 255).sum()
        shown = read_prediction(context.folder / "predictions" / Path(images.image_id(index)).with_suffix(".png"))
        assert shown.shape == images.read(index)[1].shape


def test_unlabelled_pixels_may_take_the_label_of_their_patch(
    recipe: SegmentationKNN, model: Backbone, context: Context, small_masks: Data
) -> None:
    found = {m.metric: m.value for m in replace(recipe, unlabelled="patch").run(model, context)}
    kept = read_confusions(context.folder)
    assert kept.classes == SegmentationSet(small_masks, "val").classes
    assert 0 < found["miou"] <= found["miou_present"]


def test_one_k_and_one_distance_need_no_choice(recipe: SegmentationKNN, model: Backbone, context: Context) -> None:
    assert list(replace(recipe, k=(1,), distances=("L2",)).run(model, context))
    assert not (context.folder / "choice.json").exists()
    with pytest.raises(ValueError, match=r"12 images, of which a share of 0\.01 is none: k and distance cannot be"):
        list(replace(recipe, tuning=0.01).run(model, context))


def measure(rank: int, recipe: SegmentationKNN, model: Backbone, context: Context) -> None:
    values = {m.metric: m.value for m in recipe.run(model, replace(context, main=rank == 0))}
    (context.folder / f"{rank}.json").write_text(json.dumps(values))


def test_two_processes_give_the_same_numbers(
    recipe: SegmentationKNN, model: Backbone, context: Context, tmp_path: Path
) -> None:
    alone = {m.metric: m.value for m in recipe.run(model, replace(context, folder=tmp_path / "alone"))}
    in_two_processes(measure, recipe, model, context, meet=tmp_path / "meet")
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert all(math.isclose(found[name], value, abs_tol=1e-3) for name, value in alone.items())
    assert (tmp_path / "0.json").read_text() == (tmp_path / "1.json").read_text()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    counts: Counter[str] = Counter()
    real = SegmentationSet.read

    def read(self: SegmentationSet, index: int) -> object:
        counts[f"{self.split}/{self.image_id(index)}"] += 1
        return real(self, index)

    monkeypatch.setattr(SegmentationSet, "read", read)
    return counts  # type: ignore[return-value]


def test_images_and_masks_are_decoded_once_for_all_models(
    recipe: SegmentationKNN, tiny_arch: Arch, small_masks: Data, cpu: Machine, reads: Counter[str], tmp_path: Path
) -> None:
    archs = {"one": tiny_arch, "other": replace(tiny_arch, image_size=48), "cnn": Arch(name="resnet10t", image_size=64)}
    benchmark = Benchmark(
        name="b",
        subjects={name: RandomInit(arch=arch) for name, arch in archs.items()},
        evaluators={"knn": recipe},
        data=small_masks,
        machine=cpu,
        executor=LocalExecutor(slots=1),
    )
    results = Runner(benchmark, tmp_path).run()
    assert {name: result.error for name, result in results.items()} == {f"{name}/knn": "" for name in archs}
    training = {name: count for name, count in reads.items() if name.startswith("train/")}
    assert len(training) == 12
    assert set(training.values()) == {1}
    assert set(reads.values()) <= {1, 1 + len(archs)}  # the few that are shown are opened again for their size
    assert len({r.key for r in read_records(tmp_path)}) == 3
    assert not list(tmp_path.rglob("features"))


def test_a_size_that_patches_do_not_divide(recipe: SegmentationKNN, model: Backbone) -> None:
    with pytest.raises(ValueError, match="patches of 8 pixels, which do not divide 60; choose 56 or 64 pixels"):
        replace(recipe, size=60).check(model)


def test_a_network_without_patch_tokens(recipe: SegmentationKNN) -> None:
    cnn = Backbone(Arch(name="mobilenetv3_small_050", image_size=64))  # timm calls its stages blocks
    with pytest.raises(ValueError, match="mobilenetv3_small_050 has no maps of patch tokens; give a ViT or a ResNet"):
        recipe.check(cnn)
