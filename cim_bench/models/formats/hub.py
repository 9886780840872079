"""Weights of timm's hub, ``timm:NAME``, from the network or its cache; an error if they cannot be had."""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import re
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import timm
from safetensors import SafetensorError
from torch import Tensor, nn

from cim_bench.data.classes import imagenet_wnids
from cim_bench.models.checkpoint import Meta
from cim_bench.models.formats.format import Kind, LoadReport, check_kind, same_method
from cim_bench.models.formats.measure import parse_arch
from cim_bench.models.formats.normalisation import agreed
from cim_bench.spec import Arch, FromCheckpoint

PROBE_S = 1.5  # seconds to wait for the Hub to answer
METHOD_OF_TAG = {"mae": "MAE", "dino": "DINO", "lvd142m": "DINOv2"}
# networks whose downloaded file is of a format of `catalogue`
FILE_IS_KNOWN = r"((vit|deit)_(tiny|small|base|large|huge)_patch\d+_\d+|resnet(18|34|50|101|152))\."


def hub_kind(path: str) -> Kind:
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
    method = METHOD_OF_TAG.get(tag, source.method or f"timm {tag}")
    _check_request(source, method, arch_name, tag)
    check_kind(source, kind)
    evidence = "its name" + ("" if tag in METHOD_OF_TAG or not source.method else ", as told")
    weights = f"timm's weights {arch_name}.{tag}"
    net = _weights(source.path, name, f"{arch_name}.{tag}", headless=kind == "backbone")
    pool = getattr(net, "global_pool", None)
    meta = Meta(
        kind=kind,
        method=method,
        arch=Arch(name=arch_name, image_size=config.input_size[-1]),
        epochs=source.epochs,
        seed=0,
        pretrain_data=source.pretrain_data,
        mean=(config.mean[0], config.mean[1], config.mean[2]),
        std=(config.std[0], config.std[1], config.std[2]),
        classes=imagenet_wnids() if kind == "classifier" else (),
        global_pool=pool if kind == "classifier" and isinstance(pool, str) else None,
        recipe={"format": "timm hub", "file": name, "evidence": evidence, "normalisation": weights},
    )
    dropped: tuple[str, ...] = ()
    if kind == "backbone" and config.num_classes:
        heads = [config.classifier] if isinstance(config.classifier, str) else list(config.classifier)
        dropped = tuple(f"{head}.{part}" for head in heads for part in ("bias", "weight"))
    report = LoadReport(
        format="timm hub",
        evidence=evidence,
        normalisation=weights,
        unexpected=dropped,
    )
    agreed((meta.mean, meta.std), source.normalisation)
    return dict(net.state_dict()), meta, report


def _check_request(source: FromCheckpoint, method: str, arch: str, tag: str) -> None:
    asked = parse_arch(source.arch)
    if source.method and not same_method(method, source.method):
        raise ValueError(f"{source.path} is {method}, {source.method} was asked for")
    if (asked.name and asked.name != arch) or (asked.tag and asked.tag != tag) or asked.options:
        raise ValueError(f"{source.path} is {arch}.{tag} as timm builds it, {source.arch} was asked for")


def _weights(path: str, name: str, full: str, *, headless: bool) -> nn.Module:
    """timm's network with its weights.

    Raises:
        ValueError: If they cannot be had.
    """
    try:
        with _quiet(), _cache_alone_without_network():
            net: nn.Module = timm.create_model(name, pretrained=True, **({"num_classes": 0} if headless else {}))
    except SafetensorError as error:
        raise ValueError(
            f"cannot read the cached file of {path} ({_first_line(error)}): its download was cut; delete its folder "
            f"models--timm--{full} in the cache of the Hugging Face Hub ($HF_HOME/hub or ~/.cache/huggingface/hub)"
        ) from error
    except _network_errors() as error:
        elsewhere = (
            f", or download its file elsewhere and give its path with --arch {full}"
            if re.match(FILE_IS_KNOWN, full)
            else ", or copy its folder of the Hugging Face Hub's cache from another machine"
        )
        raise ValueError(f"cannot get {path} ({_first_line(error)}): connect to the network once{elsewhere}") from error
    return net


def _network_errors() -> tuple[type[Exception], ...]:
    """Exceptions of a failed download, with those of the HTTP library that the Hub's client uses."""
    from huggingface_hub.errors import HfHubHTTPError

    bases = [base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)]
    return (*bases, OSError, RuntimeError)


@contextlib.contextmanager
def _cache_alone_without_network() -> Iterator[None]:
    """Have the Hub's client use its cache alone where the Hub does not answer: it would retry for a minute."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _answers(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(endpoint: str) -> bool:
    """Whether a server takes connections; assumed behind a proxy."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    url, reached = urlsplit(endpoint), threading.Event()

    def probe() -> None:
        with contextlib.suppress(OSError), socket.create_connection((url.hostname or "", url.port or 443), PROBE_S):
            reached.set()

    thread = threading.Thread(target=probe, daemon=True)  # resolving a name has no limit of its own
    thread.start()
    thread.join(PROBE_S)
    return reached.is_set()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the log lines of the Hub's client on each retry, whose number it has no setting for."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:100].strip()


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
