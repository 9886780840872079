"""Input normalisations of timm's weights, by the architecture's name and the weights' tag."""

from __future__ import annotations

import timm

from cim_bench.models.formats.format import Triple


def normalisation(name: str, tag: str) -> tuple[Triple, Triple]:
    """Mean and standard deviation of timm's weights for an architecture.

    Raises:
        ValueError: If timm has weights of several normalisations and no tag tells which, or has not that tag.
    """
    known = {full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")}
    if tag and tag not in known:
        raise ValueError(f"timm knows no weights {name}.{tag}; it has {', '.join(sorted(known)) or 'none'}")
    found: dict[tuple[tuple[float, ...], tuple[float, ...]], str] = {}
    for one in [tag] if tag else sorted(known):
        cfg = timm.get_pretrained_cfg(f"{name}.{one}")
        found.setdefault((tuple(cfg.mean), tuple(cfg.std)), one)
    if len(found) != 1:
        choices = " or ".join(f"--arch {name}.{one} for a mean of {mean[0]}" for (mean, _), one in found.items())
        raise ValueError(
            f"timm's weights of {name} come with {len(found)} normalisations and the file does not say which; "
            f"name theirs with {choices or 'the --arch of timm weights that it comes from'}"
        )
    (mean, std) = next(iter(found))
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def check_tag(name: str, tag: str, mean: Triple, std: Triple) -> None:
    """Refuse a tag that timm does not know, or that says another normalisation than the weights'.

    Raises:
        ValueError: Naming the tag.
    """
    if tag and (theirs := normalisation(name, tag)) != (mean, std):
        raise ValueError(
            f"it takes mean {mean} and std {std}, and timm's {name}.{tag} mean {theirs[0]} and std {theirs[1]}; "
            f"leave .{tag} out of --arch"
        )
