"""The weights behind a benchmark's rows, and how records name them and their protocols."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cim_bench import registry
from cim_bench.checkpoint import Checkpoint, Meta, content_hash, load_checkpoint
from cim_bench.data.images import ImageSet
from cim_bench.folders import safe_name
from cim_bench.recipe import OF_BENCHMARK, Benchmark, Data, Evaluator, FromCheckpoint, Pretraining, RandomInit, settings
from cim_bench.record import ProtocolInfo, SubjectInfo


@dataclass
class Subjects:
    """Checkpoints of a benchmark's subjects, read or made once."""

    benchmark: Benchmark
    output: Path
    _loaded: dict[str, Checkpoint] = field(default_factory=dict)
    _remarks: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def folder(self, subject: str) -> Path:
        """Where everything about a subject is kept."""
        return self.output / safe_name(subject)

    def pretraining(self, subject: str) -> tuple[Pretraining, Path, str]:
        """Recipe, folder and key of a subject's pre-training, on the benchmark's data unless it has its own.

        Raises:
            ValueError: If it has settings of its own data, but no root.
        """
        source = self.benchmark.subjects[subject]
        assert isinstance(source, Pretraining)
        if source.data == OF_BENCHMARK:
            source = replace(source, data=self.benchmark.data)
        elif not source.data.root:
            raise ValueError(f"settings of subjects.{subject}.data have no effect without its root; give it too")
        return source, *pretraining_folder(source, self.folder(subject))

    def checkpoint(self, subject: str) -> Checkpoint:
        """The subject's weights; those of a pre-training must be there already."""
        if subject not in self._loaded:
            source = self.benchmark.subjects[subject]
            if isinstance(source, Pretraining):
                self._loaded[subject] = load_checkpoint(self.pretraining(subject)[1] / "checkpoint")
            elif isinstance(source, FromCheckpoint):
                self._loaded[subject] = registry.load("cim_bench.formats.opening:open_checkpoint")(source)[0]
            else:
                self._loaded[subject] = random_checkpoint(source, self.benchmark.seed)
        return self._loaded[subject]

    def remarks(self, subject: str) -> tuple[str, ...]:
        """What readers must know of weights from elsewhere: that they look random, or hardly trained."""
        if subject not in self._remarks:
            checkpoint, remark = self.checkpoint(subject), ""
            if "format" in checkpoint.meta.recipe:
                from cim_bench.backbone import load_backbone
                from cim_bench.formats.randomness import examine

                remark = examine(load_backbone(checkpoint, what=subject)).remark
            self._remarks[subject] = (remark,) if remark else ()
        return self._remarks[subject]

    def info(self, subject: str) -> SubjectInfo:
        """Identity of a subject whose weights may be missing, for the record of a failure."""
        if subject in self._loaded:
            return subject_info(subject, self._loaded[subject].meta)
        source = self.benchmark.subjects[subject]
        if isinstance(source, Pretraining):
            return SubjectInfo(
                name=subject, method=source.pretext.method, arch=str(source.arch), epochs=source.training.epochs
            )
        return SubjectInfo(name=subject, method="unknown", arch="unknown")


def pretraining_folder(recipe: Pretraining, parent: Path) -> tuple[Path, str]:
    """Folder and key of a pre-training job."""
    data = ImageSet(recipe.data, recipe.data.train_split).fingerprint
    key = registry.load("cim_bench.pretrain.loop:pretraining_key")(recipe, data)
    return parent / f"pretrain-{key[:12]}", key


def random_checkpoint(source: RandomInit, seed: int) -> Checkpoint:
    """Freshly initialised weights as a checkpoint."""
    from cim_bench.backbone import create_net
    from cim_bench.data.transforms import seed_all

    seed_all(seed, "weights")
    if source.pretext is None:
        state = create_net(source.arch, num_classes=0).state_dict()
    else:
        state = source.pretext.build(source.arch).backbone_state("online")
    meta = Meta(
        kind="backbone",
        method="random",
        arch=source.arch,
        epochs=None,
        seed=seed,
        recipe=settings(source),
        hash=content_hash(state),
    )
    return Checkpoint(state=state, meta=meta)


def subject_info(name: str, meta: Meta) -> SubjectInfo:
    """Identity of a checkpoint as records carry it."""
    return SubjectInfo(
        name=name,
        method=meta.method,
        arch=str(meta.arch),
        epochs=meta.epochs,
        checkpoint=meta.hash,
        parent=meta.parent,
        pretrain_data=meta.pretrain_data,
        passed=meta.passed,
        job=meta.key,
    )


def protocol_info(evaluator: Evaluator, *, partial: bool = False) -> ProtocolInfo:
    """An evaluator's name, version, all knobs, and those that differ from its defaults."""
    resolved, defaults = _knobs(evaluator), _knobs(type(evaluator)())
    return ProtocolInfo(
        evaluator=registry.name_of("evaluators", type(evaluator)),
        version=type(evaluator).version,
        settings=resolved,
        passed=difference(resolved, defaults),
        partial=partial,
    )


def _knobs(evaluator: Evaluator) -> dict[str, Any]:
    """Settings, with the name alone of a set that an evaluator reads: its content counts elsewhere, its place never."""
    knobs: dict[str, Any] = settings(evaluator)
    own = {name: value for name, value in vars(evaluator).items() if isinstance(value, Data)}
    return {**knobs, **{name: {"name": data.name} for name, data in own.items()}}


def difference(values: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings that differ from their defaults, by dotted name."""
    changed: dict[str, Any] = {}
    for name, value in values.items():
        default = defaults.get(name)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            changed |= difference(value, default, f"{prefix}{name}.")
        elif value != default:
            changed[f"{prefix}{name}"] = value
    return changed
