"""From masks to measurements: real masks against scikit-learn, and what is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, jaccard_score

from cim_bench.contracts.context import Context
from cim_bench.evals.metrics import confusion_matrix
from cim_bench.evals.segmentation.measure import measurements
from cim_bench.models.checkpoint import Meta
from cim_bench.records.confusions import Cells, confusion_files, read_confusions, to_cells
from cim_bench.records.predictions import KEPT, prediction_files, read_prediction
from cim_bench.records.record import ProtocolInfo
from cim_bench.spec import Arch, Data, Machine


class Images:
    """A set of some images."""

    name, split = "camvid", "validation"

    def __init__(self, classes: int, *ids: str) -> None:
        self.classes, self.ids = tuple(f"class {c}" for c in range(classes)), ids

    def __len__(self) -> int:
        return len(self.ids)

    def image_id(self, index: int) -> str:
        return self.ids[index]


def context(folder: Path, *, main: bool = True) -> Context:
    meta = Meta(kind="backbone", method="x", arch=Arch(), epochs=None, seed=0)
    protocol = ProtocolInfo(evaluator="segmentation_knn", version=1)
    return Context(
        data=Data(), machine=Machine(), seed=0, folder=folder, subject=meta, key="key", protocol=protocol, main=main
    )


def camvid_masks(test_data: Path, count: int) -> dict[str, torch.Tensor]:
    """Masks of real street scenes: 11 classes from 0, 255 without a label."""
    files = sorted((test_data / "camvid-ade" / "annotations" / "validation").glob("*.png"))[:count]
    return {file.name: torch.from_numpy(np.array(Image.open(file))) - 1 for file in files}  # uint8: 0 becomes 255


@pytest.mark.data
def test_real_masks_against_scikit_learn(test_data: Path, tmp_path: Path) -> None:
    masks = camvid_masks(test_data, 6)
    guesses = [mask.roll(5, dims=1).clamp(max=10) for mask in masks.values()]
    found = [
        to_cells(confusion_matrix(mask, guess, 11).numpy()) for mask, guess in zip(masks.values(), guesses, strict=True)
    ]
    images, ctx = Images(11, *masks), context(tmp_path)
    measured = {m.metric: m for m in measurements(ctx, images, [({}, found)])}
    truth = torch.cat([mask.flatten() for mask in masks.values()]).numpy()
    predicted = torch.cat([guess.flatten() for guess in guesses]).numpy()[truth != 255]
    truth = truth[truth != 255]
    either, present = sorted({*truth, *predicted}), sorted({*truth})
    assert {m.n for m in measured.values()} == {6}
    assert {metric: m.value for metric, m in measured.items()} == pytest.approx(
        {
            "miou": jaccard_score(truth, predicted, average="macro", labels=either),
            "miou_present": jaccard_score(truth, predicted, average="macro", labels=present),
            "mean_accuracy": balanced_accuracy_score(truth, predicted),
            "pixel_accuracy": accuracy_score(truth, predicted),
        }
    )
    assert 0.3 < measured["miou"].value < 0.9
    kept = read_confusions(tmp_path, "key")
    assert (kept.ids, kept.classes) == (images.ids, images.classes)
    assert kept.sums({})[:, 1].sum() == len(truth)


def test_each_set_of_facets_has_numbers_of_its_own(tmp_path: Path) -> None:
    right, wrong = (to_cells(np.array(rows)) for rows in ([[1, 0], [0, 1]], [[0, 1], [1, 0]]))
    found = [({"window": "whole"}, [right]), ({"window": "slide-341"}, [wrong])]
    measured = list(measurements(context(tmp_path), Images(2, "a"), found))
    assert [(m.metric, m.facets["window"], m.value) for m in measured] == [
        (metric, window, value)
        for window, value in (("whole", 1.0), ("slide-341", 0.0))
        for metric in ("miou", "miou_present", "mean_accuracy", "pixel_accuracy")
    ]


def test_a_network_that_knows_one_class_has_a_footnote(tmp_path: Path) -> None:
    one, two = (to_cells(np.array(rows)) for rows in ([[3, 0], [2, 0]], [[3, 0], [1, 1]]))
    ctx = context(tmp_path)
    list(measurements(ctx, Images(2, "a"), [({"window": "whole"}, [one]), ({"window": "slide-341"}, [two])]))
    assert ctx.warnings == ["all pixels were taken for one class under whole: the model does not tell them apart"]
    list(measurements(other := context(tmp_path), Images(2, "a"), [({}, [to_cells(np.array([[3, 0], [0, 0]]))])]))
    assert other.warnings == []  # there is but one


def test_a_set_without_labels_is_refused(tmp_path: Path) -> None:
    nothing = Cells(np.zeros(0, np.int64), np.zeros(0, np.int64))
    with pytest.raises(ValueError, match="camvid/validation: no pixel has a label"):
        list(measurements(context(tmp_path), Images(2, "a"), [({}, [nothing])]))


def test_the_main_process_alone_writes(tmp_path: Path) -> None:
    found = [({}, [to_cells(np.eye(2, dtype=np.int64))])]
    assert len(list(measurements(context(tmp_path, main=False), Images(2, "a"), found))) == 4
    assert confusion_files(tmp_path) == []


def test_the_masks_of_a_few_images_are_kept_by_whoever_has_them(tmp_path: Path) -> None:
    images, ctx = Images(2, *(f"{i}.jpg" for i in range(20))), context(tmp_path, main=False)
    for index in range(20):
        ctx.save_prediction(images, index, torch.full((2, 3), index % 2))
    kept = list(prediction_files(tmp_path))
    assert len(kept) == KEPT
    assert (read_prediction(tmp_path / "predictions" / "5.png", "key") == np.ones((2, 3))).all()
