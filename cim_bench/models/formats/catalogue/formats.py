"""All public checkpoint formats that are recognised: ours, those of installed packages, and a user's own.

`docs/checkpoints.md` lists ours; `docs/new_format.md` says how to write one.
"""

from __future__ import annotations

from collections.abc import Sequence

from cim_bench import registry
from cim_bench.models.formats.catalogue.beit import BEIT_FORMATS
from cim_bench.models.formats.catalogue.dino import DINO_FORMATS
from cim_bench.models.formats.catalogue.eva import EVA_FORMATS
from cim_bench.models.formats.catalogue.huggingface import HUGGINGFACE_FORMATS
from cim_bench.models.formats.catalogue.resnet import RESNET_FORMATS
from cim_bench.models.formats.catalogue.vit import VIT_FORMATS
from cim_bench.models.formats.format import Format

FORMATS: tuple[Format, ...] = (
    *VIT_FORMATS,
    *DINO_FORMATS,
    *BEIT_FORMATS,
    *EVA_FORMATS,
    *RESNET_FORMATS,
    *HUGGINGFACE_FORMATS,
)


def formats_to_try(name: str) -> Sequence[Format]:
    """The formats that a file may be of.

    Args:
        name: Empty for all; else the name of one, or a .py file with one as ``FORMAT``, which is executed.

    Raises:
        ValueError: If there is no such format.
    """
    if name.endswith(".py"):
        found = getattr(registry.load_module(name), "FORMAT", None)
        if not isinstance(found, Format):
            raise ValueError(f"{name} defines no FORMAT, a cim_bench.Format; see docs/new_format.md")
        return (found,)
    foreign = [path for key, path in registry.choices("formats").items() if not registry.broken("formats", key)]
    known = (*FORMATS, *(registry.load(path) for path in foreign))
    if not name:
        return known
    chosen = [fmt for fmt in known if fmt.name.lower() == name.lower()]
    if not chosen:
        raise ValueError(f"no checkpoint format is called {name!r}; choose one of {', '.join(f.name for f in known)}")
    return chosen
