"""How records and keys name weights, protocols and pre-trainings."""

from __future__ import annotations

from typing import Any

from cim_bench import registry
from cim_bench.benchmark import Pretraining
from cim_bench.common.hashing import stable_hash
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.models.checkpoint import Meta
from cim_bench.records.record import ProtocolInfo, SubjectInfo
from cim_bench.spec import Data, difference, settings


def subject_info(name: str, meta: Meta) -> SubjectInfo:
    """Identity of a checkpoint as records carry it."""
    told = meta.recipe
    recognised = (
        f"{told['format']}: {told['evidence']}; normalisation: {told['normalisation']}" if "evidence" in told else ""
    )
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
        recognised=recognised,
    )


def protocol_info(evaluator: Evaluator, data: Data | None = None) -> ProtocolInfo:
    """An evaluator's name, version, all knobs, and those that differ from its defaults.

    Args:
        evaluator: The protocol.
        data: The benchmark's, for what else its numbers depend on.
    """
    resolved, defaults = _knobs(evaluator), _knobs(type(evaluator)())
    return ProtocolInfo(
        evaluator=registry.name_of("evaluators", type(evaluator)),
        version=type(evaluator).version,
        settings=resolved,
        passed=difference(resolved, defaults),
        identity={} if data is None else dict(evaluator.identity(data)),
    )


def _knobs(evaluator: Evaluator) -> dict[str, Any]:
    """Settings, with the name alone of a set that an evaluator reads: its content counts elsewhere, its place never."""
    knobs: dict[str, Any] = settings(evaluator)
    own = {name: value for name, value in vars(evaluator).items() if isinstance(value, Data)}
    return {**knobs, **{name: {"name": data.name} for name, data in own.items()}}


def pretraining_info(source: object) -> ProtocolInfo:
    """A pre-training as the record of its failure names it: the pretext in place of an evaluator."""
    assert isinstance(source, Pretraining)
    return ProtocolInfo(
        evaluator="pretrain",
        version=source.pretext.version,
        settings=settings(source.pretext),
        passed=difference(settings(source.pretext), settings(type(source.pretext)())),
    )


def pretraining_key(recipe: Pretraining, data: str) -> str:
    """Identity of the checkpoint: everything that can move a weight.

    Args:
        recipe: The recipe; its machine does not count.
        data: Fingerprint of the training images.
    """
    parts = {k: v for k, v in settings(recipe).items() if k not in ("machine", "data")}
    return stable_hash({**parts, "version": recipe.pretext.version, "data": data})
