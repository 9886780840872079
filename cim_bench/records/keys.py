"""The key of an evaluation job: the same key means the same number."""

from __future__ import annotations

from cim_bench.common.hashing import stable_hash
from cim_bench.records.record import ProtocolInfo


def job_key(*, weights: str, protocol: ProtocolInfo, data: str, seed: int) -> str:
    """Identity of an evaluation: the same key means the same number, so the job is skipped.

    Args:
        weights: Identity of the checkpoint: its content, network, normalisation and method.
        protocol: Evaluator, version, resolved settings, and what else its numbers depend on.
        data: Fingerprint of the data.
        seed: The job's seed.
    """
    names = ("evaluator", "version", "settings", "identity")
    how = {name: getattr(protocol, name) for name in names}
    return stable_hash({"weights": weights, "protocol": how, "data": data, "seed": seed})
