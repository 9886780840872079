"""Input normalisations: which there are, and where each format says which is its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import timm
from timm.data import constants

Triple = tuple[float, float, float]
Pair = tuple[Triple, Triple]  # mean and standard deviation, per channel of an image in [0, 1]

NORMALISATIONS: Mapping[str, Pair] = {  # by timm's names (timm, data/constants.py)
    "imagenet": (constants.IMAGENET_DEFAULT_MEAN, constants.IMAGENET_DEFAULT_STD),
    "inception": (constants.IMAGENET_INCEPTION_MEAN, constants.IMAGENET_INCEPTION_STD),
    "sat493m": ((0.430, 0.411, 0.296), (0.213, 0.156, 0.143)),  # satellite images (facebookresearch/dinov3, README)
    "clip": (constants.OPENAI_CLIP_MEAN, constants.OPENAI_CLIP_STD),
}


@dataclass(frozen=True, kw_only=True)
class Told:
    """All that may tell the normalisation of a file.

    Attributes:
        name: What the user says: a key of `NORMALISATIONS`; empty if nothing.
        arch: timm's name of the architecture.
        tag: Tag of timm's weights that the user names; empty if none.
        args: Settings of the training script, as the file holds them.
        beside: ``preprocessor_config.json`` beside the file; empty if there is none.
    """

    name: str = ""
    arch: str = ""
    tag: str = ""
    args: Mapping[str, Any]
    beside: Mapping[str, Any]


class Normalisation(Protocol):
    """How the normalisation of a format's files is found; it is never guessed."""

    def read(self, told: Told) -> tuple[Pair, str]:
        """Mean and std, and where that was read.

        Raises:
            ValueError: If nothing tells it, or what tells it contradicts what the user says.
        """


@dataclass(frozen=True)
class Cited:
    """The same for all files of a format: its public code has no switch.

    Attributes:
        mean: Per channel.
        std: Likewise.
    """

    mean: Triple
    std: Triple

    def read(self, told: Told) -> tuple[Pair, str]:
        """See `Normalisation`."""
        pair = (self.mean, self.std)
        check_tag(told.arch, told.tag, pair)
        return agreed(pair, told.name), "the public code, which has no other"


@dataclass(frozen=True)
class Switch:
    """The public script has a switch, whose setting it saves in ``args``.

    Attributes:
        setting: Name of the setting.
        values: Normalisation by the setting's value.
    """

    setting: str
    values: Mapping[object, str]

    def read(self, told: Told) -> tuple[Pair, str]:
        """See `Normalisation`."""
        if self.setting in told.args:
            value = told.args[self.setting]
            if value not in self.values:
                raise ValueError(f"its args say {self.setting} = {value!r}, which is no known normalisation")
            pair, where = NORMALISATIONS[self.values[value]], f"its args, {self.setting} = {value}"
        elif told.name:
            pair, where = NORMALISATIONS[told.name], f"as told, {told.name}"
        else:
            choices = " or ".join(
                f"--normalisation {name} for a mean of {NORMALISATIONS[name][0][0]:g}" for name in self.values.values()
            )
            raise ValueError(
                f"its training script has a switch, {self.setting}, that the file does not hold; {choices}"
            )
        check_tag(told.arch, told.tag, pair)
        return agreed(pair, told.name), where


@dataclass(frozen=True)
class Unsaid:
    """Published files of the format differ, and nothing in them says in what.

    Attributes:
        choices: Keys of `NORMALISATIONS`.
    """

    choices: tuple[str, ...]

    def read(self, told: Told) -> tuple[Pair, str]:
        """See `Normalisation`."""
        if not told.name:
            word = "published files of its format differ in their normalisation"
            raise ValueError(f"{word}; name its own with --normalisation {' or '.join(self.choices)}")
        check_tag(told.arch, told.tag, NORMALISATIONS[told.name])
        return NORMALISATIONS[told.name], f"as told, {told.name}"


@dataclass(frozen=True)
class OfTimm:
    """That of timm's weights: by the tag that the user names, or where all of an architecture's have the same.

    Attributes:
        otherwise: Without a tag; ``None``: what all timm weights of the architecture share.
    """

    otherwise: Cited | None = None

    def read(self, told: Told) -> tuple[Pair, str]:
        """See `Normalisation`."""
        if told.tag:
            return agreed(of_timm(told.arch, told.tag), told.name), f"timm's weights {told.arch}.{told.tag}"
        if told.name:
            return NORMALISATIONS[told.name], f"as told, {told.name}"
        if self.otherwise is not None:
            return (self.otherwise.mean, self.otherwise.std), "the public code of torchvision, which has no other"
        return of_timm(told.arch, ""), f"all of timm's weights of {told.arch}"


@dataclass(frozen=True)
class Beside:
    """``preprocessor_config.json`` beside the file, as Hugging Face's ``save_pretrained`` and Hub have it.

    Attributes:
        otherwise: Where there is none; ``None``: the user says.
    """

    otherwise: Cited | None = None

    def read(self, told: Told) -> tuple[Pair, str]:
        """See `Normalisation`."""
        values = [told.beside.get(key) for key in ("image_mean", "image_std")]
        if all(isinstance(value, list) and len(value) == 3 for value in values):
            mean, std = (tuple(float(x) for x in value) for value in values if value is not None)
            pair = ((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
            check_tag(told.arch, told.tag, pair)
            return agreed(pair, told.name), "preprocessor_config.json beside it"
        if self.otherwise is not None:
            return self.otherwise.read(told)
        if told.name:
            return NORMALISATIONS[told.name], f"as told, {told.name}"
        raise ValueError(
            "it has no preprocessor_config.json beside it, which says its normalisation; put it there, or name it with "
            f"--normalisation {' or '.join(NORMALISATIONS)}"
        )


IMAGENET, INCEPTION, CLIP = (Cited(*NORMALISATIONS[name]) for name in ("imagenet", "inception", "clip"))


def agreed(pair: Pair, name: str) -> Pair:
    """A normalisation, unless the user says another.

    Raises:
        ValueError: Naming both.
    """
    if name and NORMALISATIONS[name] != pair:
        raise ValueError(
            f"its mean is {pair[0]} and its std {pair[1]}, --normalisation {name} was asked for; give none"
        )
    return pair


def of_timm(name: str, tag: str) -> Pair:
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
            f"name theirs with {choices or '--normalisation ' + ' or '.join(NORMALISATIONS)}"
        )
    (mean, std) = next(iter(found))
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def check_tag(name: str, tag: str, pair: Pair) -> None:
    """Refuse a tag that timm does not know, or that says another normalisation than the weights'.

    Raises:
        ValueError: Naming the tag.
    """
    if tag and (theirs := of_timm(name, tag)) != pair:
        raise ValueError(
            f"it takes mean {pair[0]} and std {pair[1]}, and timm's {name}.{tag} mean {theirs[0]} and std {theirs[1]}; "
            f"leave .{tag} out of --arch"
        )
