"""Which records the matrix sets beside each other: measured on ImageNet-1K, and the models behind published rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from cim_bench.published_protocols import RSB
from cim_bench.reports.papers.cim_cvpr2023.tables import PAPER_BENCHMARK
from cim_bench.reports.read.frames import flat_records, records_frame
from cim_bench.reports.read.published import published_records
from cim_bench.reports.tables.footnotes import setting
from cim_bench.reports.tables.table import FlatRecord

# Published names of training from random weights; RSB A3 and A2 are told apart by their fine-tuning epochs.
_SCRATCH = ("scratch", "random", "rsba3", "rsba2")
_VAL_IMAGES = 50_000
_DATA_NAMES = {"imagenet-1k": "IN-1K", "imagenet": "IN-1K", "in-1k": "IN-1K"}


class Model(NamedTuple):
    """What is compared before two numbers stand beside each other."""

    family: str
    method: str
    epochs: float | None
    finetune_epochs: float | None
    pretrain_data: str

    def fits(self, measured: Model, *, same_tuning: bool) -> bool:
        """Whether a measured number may stand beside this published one.

        Args:
            measured: What was measured.
            same_tuning: Whether published fine-tuning epochs must be those of the measured model.
        """
        tuned_alike = self.finetune_epochs in (None, measured.finetune_epochs)
        same = (self.family, method_key(self.method)) == (measured.family, method_key(measured.method))
        return same and (tuned_alike or not same_tuning)

    def differences(self, measured: Model) -> list[str]:
        """In what a measured model is not this published one, as footnotes."""
        pairs = (
            ("pre-training", self.epochs, measured.epochs),
            ("fine-tuning", self.finetune_epochs, measured.finetune_epochs),
        )
        found = [
            f"measured checkpoint: {_number(ours)} epochs of {what}, published row: {_number(own)}"
            for what, own, ours in pairs
            if own not in (None, ours)
        ]
        data = _DATA_NAMES.get(measured.pretrain_data.casefold(), measured.pretrain_data)
        if data and self.pretrain_data and data.casefold() != self.pretrain_data.casefold():
            said = f"measured checkpoint: said to be pre-trained on {data}"
            found.append(f"{said}, published row: {self.pretrain_data}")
        return found


def _number(epochs: float | None) -> str:
    return "an unknown number of" if epochs is None else f"{epochs:g}"


def method_key(name: str) -> str:
    """A method's name without case, spaces and hyphens; one name for all training from random weights."""
    key = re.sub(r"[^a-z0-9]", "", name.casefold())
    return "scratch" if key in _SCRATCH else key


def on_imagenet(records: Sequence[FlatRecord]) -> list[FlatRecord]:
    """What was measured on ImageNet-1K's validation images (``validation`` at Hugging Face and in TFDS).

    The epochs of a fine-tuning have a column of their own, and are not among the settings that become footnotes;
    those of a ResNet are told from RSB's.
    """
    return [
        {**record, "passed": _telling(record), "warnings": (*record["warnings"], *_count_warnings(record))}
        for record in records
        if (record["source"], record["status"], record["benchmark"]) == ("measured", "ok", PAPER_BENCHMARK)
        and record["split"] in ("val", "validation")
    ]


def _telling(record: FlatRecord) -> dict[str, Any]:
    """Settings that differ from those of the published row beside which a record may stand."""
    passed, expected = record["passed"], RSB.get(record["finetune_epochs"] or 0.0, {})
    if record["evaluator"] == "finetune" and record["family"] == "resnet50" and expected:
        names = dict.fromkeys([*passed, *expected])
        passed = {name: passed.get(name, setting(record, name)) for name in names}
        passed = {name: value for name, value in passed.items() if name not in expected or value != expected[name]}
    return {name: value for name, value in passed.items() if name != "training.epochs"}


def _count_warnings(record: FlatRecord) -> list[str]:
    if record["n"] == _VAL_IMAGES or record["partial"]:
        return []
    return [f"{record['n']:,} images, where the validation split of ImageNet-1K has {_VAL_IMAGES:,}"]


def tuned_elsewhere(records: Sequence[FlatRecord]) -> list[FlatRecord]:
    """Records of attacks on classifiers that came fine-tuned; the clean one is all there is of their top-1."""
    tuned = {record["key"] for record in records if record["evaluator"] == "finetune"}
    warning = "not fine-tuned here: top-1 on the clean images of the attacks"
    return [
        {
            **record,
            "passed": {name: value for name, value in record["passed"].items() if name == "crop_pct"},
            "warnings": (*record["warnings"], warning),
        }
        for record in records
        if record["evaluator"] == "adversarial" and record["job"] not in tuned
    ]


def with_models() -> list[FlatRecord]:
    """The published robustness records, with the epochs of the published model that has their clean top-1."""
    records = flat_records(records_frame(published_records("robustness")))
    top1 = flat_records(records_frame([*published_records("imagenet-vit"), *published_records("imagenet-cnn")]))
    models = {(record["family"], method_key(record["method"]), record["value"]): record for record in top1}
    clean = {(r["family"], r["method"]): r["value"] for r in records if r["evaluator"] == "finetune"}
    found: list[FlatRecord] = []
    for record in records:
        value = clean[record["family"], record["method"]]
        model = models[record["family"], method_key(record["method"]), value]
        found.append({**record, **{name: model[name] for name in ("epochs", "finetune_epochs", "pretrain_data")}})
    return found


def with_tunings(records: Sequence[FlatRecord]) -> list[FlatRecord]:
    """Records with the epochs of the fine-tuning on ImageNet-1K that made their classifier."""
    tuned = {r["key"]: r["finetune_epochs"] for r in on_imagenet(records) if r["evaluator"] == "finetune"}
    return [{**record, "finetune_epochs": tuned.get(record["job"])} for record in records]
