"""All public checkpoint formats that are recognised.

A format is recognised from the keys of the file alone (and, for encoders with the same keys, from which fixed table
their positions are, if any, and whether their patch projection was trained). `docs/checkpoints.md` lists the formats
and says how to add one.
"""

from __future__ import annotations

from cim_bench.models.formats.catalogue.beit import BEIT_FORMATS
from cim_bench.models.formats.catalogue.resnet import RESNET_FORMATS
from cim_bench.models.formats.catalogue.vit import VIT_FORMATS
from cim_bench.models.formats.format import Format

FORMATS: tuple[Format, ...] = (*VIT_FORMATS, *BEIT_FORMATS, *RESNET_FORMATS)
