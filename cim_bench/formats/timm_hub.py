"""Weights of timm's hub, ``timm:NAME``: downloaded or from the cache, never random ones in their place."""

from __future__ import annotations

import difflib

import timm
from torch import Tensor

from cim_bench.checkpoint import Meta
from cim_bench.data.wnids import imagenet_wnids
from cim_bench.formats.architectures import parse_arch
from cim_bench.formats.key_map import LoadReport, same_method
from cim_bench.recipe import Arch, FromCheckpoint

METHODS = {"mae": "MAE", "dino": "DINO", "lvd142m": "DINOv2"}  # tags that name a method of the tables


def hub_kind(path: str) -> str:
    """``classifier`` for weights with a head of ImageNet-1k's 1000 classes, ``backbone`` for any other.

    Raises:
        ValueError: If timm has no such weights.
    """
    return "classifier" if _config(path).num_classes == len(imagenet_wnids()) else "backbone"


def open_hub(source: FromCheckpoint) -> tuple[dict[str, Tensor], Meta, LoadReport]:
    """Weights and identity of ``timm:NAME`` at their own input size.

    Raises:
        ValueError: If timm has no such weights, they cannot be had, or are not what was asked for.
    """
    name = source.path.partition(":")[2]
    config, kind = _config(source.path), hub_kind(source.path)
    arch_name, tag = name.partition(".")[0], str(config.tag)
    method = METHODS.get(tag, source.method or f"timm {tag}")
    if source.method and not same_method(method, source.method):
        raise ValueError(f"{source.path} is {method}, {source.method} was asked for")
    asked = parse_arch(source.arch)
    if asked.name and asked.name != arch_name:
        raise ValueError(f"{source.path} is {arch_name}, {asked.name} was asked for")
    try:
        net = timm.create_model(name, pretrained=True, **({} if kind == "classifier" else {"num_classes": 0}))
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"cannot get {source.path} ({(str(error).splitlines() or [''])[0][:100]}): connect to the network once, or "
            f"download its file elsewhere and give its path with --arch {arch_name}.{tag}"
        ) from error
    pool = getattr(net, "global_pool", None)
    meta = Meta(
        kind="classifier" if kind == "classifier" else "backbone",
        method=method,
        arch=Arch(name=arch_name, image_size=config.input_size[-1]),
        epochs=source.epochs,
        seed=0,
        pretrain_data=source.pretrain_data,
        mean=(config.mean[0], config.mean[1], config.mean[2]),
        std=(config.std[0], config.std[1], config.std[2]),
        classes=imagenet_wnids() if kind == "classifier" else (),
        global_pool=pool if kind == "classifier" and isinstance(pool, str) else None,
        recipe={"format": "timm hub", "file": name},
    )
    dropped: tuple[str, ...] = ()
    if kind == "backbone" and config.num_classes:
        heads = [config.classifier] if isinstance(config.classifier, str) else list(config.classifier)
        dropped = tuple(f"{head}.{part}" for head in heads for part in ("bias", "weight"))
    report = LoadReport(format="timm hub", matched=(), unexpected=dropped)
    return dict(net.state_dict()), meta, report


def _config(path: str) -> timm.models.PretrainedCfg:
    """timm's description of the weights.

    Raises:
        ValueError: With close names, if there are none.
    """
    name = path.partition(":")[2]
    known = timm.list_pretrained()
    arch, _, tag = name.partition(".")
    config = timm.get_pretrained_cfg(name) if (name in known or (not tag and timm.is_model_pretrained(arch))) else None
    if config is None:
        near = difflib.get_close_matches(name, known, n=4) or [k for k in known if k.startswith(f"{arch}.")][:4]
        raise ValueError(
            f"timm has no weights {name!r}; near ones are {', '.join(near) or 'none'} (timm.list_pretrained())"
        )
    return config
