"""The weights behind a benchmark's rows, and how records name them and their protocols."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from cim_bench.benchmark import Benchmark, Pretraining, RandomInit
from cim_bench.common.files import safe_name
from cim_bench.data.images import ImageSet
from cim_bench.jobs.identity import pretraining_key, subject_info
from cim_bench.models.checkpoint import Checkpoint, Meta, content_hash, load_checkpoint
from cim_bench.models.formats.opening import open_checkpoint
from cim_bench.records.record import SubjectInfo
from cim_bench.spec import OF_BENCHMARK, FromCheckpoint, settings


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
                self._loaded[subject] = open_checkpoint(source)[0]
            else:
                self._loaded[subject] = random_checkpoint(source, self.benchmark.seed)
        return self._loaded[subject]

    def remarks(self, subject: str) -> tuple[str, ...]:
        """What readers must know of weights from elsewhere: that they look random, or hardly trained."""
        if subject not in self._remarks:
            checkpoint, remark = self.checkpoint(subject), ""
            if "format" in checkpoint.meta.recipe:
                from cim_bench.models.backbone import load_backbone
                from cim_bench.models.inspection.randomness import examine

                remark = examine(load_backbone(checkpoint, what=subject)).warning
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
    key = pretraining_key(recipe, data)
    return parent / f"pretrain-{key[:12]}", key


def random_checkpoint(source: RandomInit, seed: int) -> Checkpoint:
    """Freshly initialised weights as a checkpoint."""
    from cim_bench.common.seeds import seed_all
    from cim_bench.models.backbone import create_net

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
