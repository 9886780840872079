"""The weights behind a benchmark's rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from cim_bench.benchmark import Benchmark, Pretraining, RandomInit
from cim_bench.common.files import safe_name
from cim_bench.common.hashing import stable_hash
from cim_bench.common.seeds import seed_all
from cim_bench.data.images import ImageSet
from cim_bench.jobs.calibration import calibrate
from cim_bench.jobs.identity import pretraining_key, subject_info
from cim_bench.models.backbone import create_net, load_backbone
from cim_bench.models.checkpoint import META, Checkpoint, Meta, content_hash, load_checkpoint, read_meta
from cim_bench.models.formats.opening import open_checkpoint
from cim_bench.models.inspection.randomness import examine
from cim_bench.records.record import SubjectInfo
from cim_bench.spec import OF_BENCHMARK, Data, FromCheckpoint, settings

CHECKPOINT = "checkpoint"  # folder of a pre-training's result, below the job's own


@dataclass
class Subjects:
    """Checkpoints of a benchmark's subjects: their identities are kept, of their weights only the last ones read."""

    benchmark: Benchmark
    output: Path
    _metas: dict[str, Meta] = field(default_factory=dict)
    _warnings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _last: tuple[str, Checkpoint] | None = None

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

    def meta(self, subject: str) -> Meta:
        """Identity of the subject's weights; those of a pre-training must be there already."""
        if subject not in self._metas:
            source = self.benchmark.subjects[subject]
            if isinstance(source, Pretraining):
                self._metas[subject] = read_meta(self.pretraining(subject)[1] / CHECKPOINT)
            elif isinstance(source, RandomInit):  # without the images that its statistics may need
                self._metas[subject] = random_start(source, self.benchmark.seed, self.benchmark.data).meta
            else:
                self._metas[subject] = self.checkpoint(subject).meta
        return self._metas[subject]

    def checkpoint(self, subject: str) -> Checkpoint:
        """The subject's weights; those of a pre-training must be there already."""
        if self._last is None or self._last[0] != subject:
            source = self.benchmark.subjects[subject]
            if isinstance(source, Pretraining):
                found = load_checkpoint(self.pretraining(subject)[1] / CHECKPOINT)
            elif isinstance(source, FromCheckpoint):
                found, _ = open_checkpoint(source)
            else:
                found = random_checkpoint(source, self.benchmark.seed, self.benchmark.data)
            self._last = subject, found
        return self._last[1]

    def warnings(self, subject: str) -> tuple[str, ...]:
        """What to tell beside numbers: foreign weights look hardly trained, or ours did not learn the pretext."""
        if subject not in self._warnings:
            warning = self.meta(subject).warning
            if "format" in self.meta(subject).recipe:
                warning = examine(load_backbone(self.checkpoint(subject), what=subject)).warning
            self._warnings[subject] = (warning,) if warning else ()
        return self._warnings[subject]

    def info(self, subject: str) -> SubjectInfo:
        """Identity of a subject whose weights may be missing, for the record of a failure."""
        if subject in self._metas:
            return subject_info(subject, self._metas[subject])
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


def is_trained(folder: Path, key: str) -> bool:
    """Whether a pre-training has exported its checkpoint.

    Raises:
        ValueError: If that is damaged, or another job's.
    """
    target = folder / CHECKPOINT
    if not (target / META).exists():
        return False
    if (found := read_meta(target).key) != key:
        raise ValueError(f"{target} is of another pre-training ({found[:12]}); move it away and run again")
    return True


def random_checkpoint(source: RandomInit, seed: int, data: Data | None = None) -> Checkpoint:
    """Freshly initialised weights as a checkpoint, with BatchNorm's statistics of images if `source` asks for them.

    Args:
        source: What to initialise.
        seed: Of the weights.
        data: Whose training split gives the statistics.

    Raises:
        ValueError: If statistics are asked for and the network has no BatchNorm.
    """
    start = random_start(source, seed, data)
    if not source.calibrate:
        return start
    assert data is not None
    state = calibrate(source.arch, start.state, ImageSet(data, data.train_split), source.calibrate)
    return Checkpoint(state=state, meta=start.meta)


def random_start(source: RandomInit, seed: int, data: Data | None = None) -> Checkpoint:
    """`random_checkpoint` with a fresh network's statistics, and the identity that it has with those of images.

    That rests on the fresh weights, the number of images and their fingerprint: sums over images differ in their last
    digits from one machine to the next, and a job's key must not.
    """
    seed_all(seed, "weights")
    if source.pretext is None:
        state = create_net(source.arch, num_classes=0).state_dict()
    else:
        state = source.pretext.build(source.arch).backbone_state("online")
    found = content_hash(state)
    if source.calibrate:
        assert data is not None
        found = stable_hash([found, "calibrate", source.calibrate, ImageSet(data, data.train_split).fingerprint])
    meta = Meta(
        kind="backbone",
        method="random",
        arch=source.arch,
        epochs=None,
        seed=seed,
        recipe=settings(source),
        passed={"calibrate": source.calibrate} if source.calibrate else {},
        hash=found,
    )
    return Checkpoint(state=state, meta=meta)
