"""What ``cim-bench inspect`` prints: a checkpoint's identity, the account of its keys, and whether it was trained."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cim_bench.models.backbone import Backbone, load_backbone
from cim_bench.models.checkpoint import Meta
from cim_bench.models.formats.format import LoadReport
from cim_bench.models.formats.opening import open_checkpoint
from cim_bench.models.inspection.randomness import Evidence, examine
from cim_bench.spec import FromCheckpoint


def inspect(source: FromCheckpoint) -> str:
    """Describe a checkpoint: identity, report of its keys, and whether it looks trained; several lines.

    Raises:
        ValueError: If it cannot be opened; one sentence.
    """
    checkpoint, report = open_checkpoint(source)
    model = load_backbone(checkpoint, what=source.path)
    identity = _identity(checkpoint.meta, report, _untold(model, report))
    return "\n".join([source.path, *identity, *_keys(report), *_trained(examine(model))])


def _untold(model: Backbone, report: LoadReport) -> dict[str, str]:
    """A transformer's attention heads and activation, which features depend on and shapes do not tell."""
    block = next(iter(getattr(model.net, "blocks", ())), None)
    number = getattr(getattr(block, "attn", None), "num_heads", None)
    activation = getattr(getattr(block, "mlp", None), "act", None)
    known = report.format in ("cim-bench", "timm hub")
    found = {} if number is None else {"heads": (str(number), "num_heads=N")}
    if activation is not None:
        found["activation"] = (type(activation).__name__, "act_layer=NAME")
    return {
        name: value if known else f"{value} (not told by shapes; --arch NAME,{option})"
        for name, (value, option) in found.items()
    }


def _identity(meta: Meta, report: LoadReport, untold: dict[str, str]) -> list[str]:
    head = f"classifier of {len(meta.classes)} classes" if meta.kind == "classifier" else "backbone without head"
    epochs = "not told by the file" if meta.epochs is None else f"{meta.epochs:g}"
    rows = {
        "format": f"{report.format}, told by {report.evidence}",
        "method": meta.method,
        "kind": head,
        "architecture": str(meta.arch),
        **untold,
        "input": f"{meta.arch.image_size} pixels",
        "normalisation": f"mean {_numbers(meta.mean)}, std {_numbers(meta.std)}, told by {report.normalisation}",
        "epochs": f"{epochs} (pre-training)",
        "content hash": meta.hash,
    }
    return [f"  {name:<13} {value}" for name, value in rows.items()]


def _keys(report: LoadReport) -> list[str]:
    lines = ["keys"]
    for title, names, meaning in (
        ("matched", report.matched, "taken as they are"),
        ("resampled", report.resampled, "brought to another grid"),
        ("missing", report.missing, "counters that no feature depends on, set to 0"),
        ("unexpected", report.unexpected, "dropped, as the format declares"),
    ):
        lines.append(f"  {title:<13} {len(names):>5}" + (f"  {meaning}: {', '.join(grouped(names))}" if names else ""))
    return lines + [f"  note          {note}" for note in report.notes]


def _trained(evidence: Evidence) -> list[str]:
    return [
        "features",
        f"  finite        {'yes' if evidence.finite else 'NO'}",
        f"  norms         {len(evidence.initial_norms)} of {evidence.norms} are as initialised",
        f"  matrices      median largest singular value {evidence.spectral_ratio:.2f} times that of a random matrix",
        f"  similarity    {evidence.similarity:.2f} (linear CKA) to a freshly initialised network of this architecture",
        f"  verdict       {evidence.verdict}",
    ]


def grouped(names: Iterable[str]) -> list[str]:
    """Names with their indices and last parts folded, and how many names each stands for.

    Examples:
        >>> grouped(["blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.bias", "blocks.1.attn.qkv.weight", "cls_token"])
        ['blocks.*.attn.qkv (3)', 'cls_token']
    """
    groups: dict[str, int] = {}
    for name in names:
        folded = re.sub(r"^layer\d", "layer*", re.sub(r"\.\d+(?=\.|$)", ".*", name))
        group = re.sub(r"\.(weight|bias|running_mean|running_var|num_batches_tracked)$", "", folded)
        groups[group] = groups.get(group, 0) + 1
    return [f"{name} ({number})" if number > 1 else name for name, number in groups.items()]


def _numbers(values: Iterable[float]) -> str:
    return "/".join(f"{value:g}" for value in values)
