"""The one place that reads records and outcomes of version 0.1.0, where a text ``variant`` said what facets say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cim_bench.records.facets import CLEAN, NAMELESS, Facets, as_255

FIRST_SCHEMA = 1


def upgrade(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A record of the first schema, as JSON holds it, in the present one.

    Raises:
        KeyError: If it is no such record.
        TypeError: Likewise.
    """
    measurement = raw["measurement"]
    if measurement:
        known = {name: value for name, value in measurement.items() if name != "variant"}
        protocol = raw["protocol"]
        facets = facets_of(measurement["variant"], protocol["evaluator"], protocol["settings"])
        measurement = {**known, "facets": facets}
    return {**raw, "measurement": measurement, "schema": FIRST_SCHEMA + 1}


def column_facets(column: str, evaluator: str, settings: Mapping[str, Any]) -> Facets:
    """The facets behind an outcome column that does not tell them itself; arguments as for `facets_of`."""
    return facets_of("" if column == NAMELESS else column, evaluator, settings)


def facets_of(variant: str, evaluator: str, settings: Mapping[str, Any]) -> Facets:
    """What a variant says.

    Args:
        variant: Such as ``k=20``, ``pgd eps=2/255``, ``fog-3`` or ``clean-200``; empty for no facets.
        evaluator: Registry name of the protocol that wrote it; of an unknown one, the text becomes one facet.
        settings: The protocol's; sizes of attacks are exact there.
    """
    if not variant:
        return {}
    read = {
        "knn": _of_neighbours,
        "adversarial": _of_attack,
        "corruptions": _of_corruption,
        "shifts": _of_clean_images,
        "robustbench": _of_robustbench,
    }.get(evaluator)
    found = read(variant, settings) if read else None
    return {f"{evaluator}.variant": variant} if found is None else found


def _of_neighbours(variant: str, _settings: Mapping[str, Any]) -> Facets | None:
    name, _, count = variant.partition("=")
    return {"k": int(count)} if name == "k" and count.isdecimal() else None


def _of_attack(variant: str, settings: Mapping[str, Any]) -> Facets | None:
    if variant == CLEAN:
        return {"attack": CLEAN}
    attack, _, shown = variant.partition(" eps=")
    sizes = settings.get("eps") or ()
    eps = next((size for size in sizes if shown in ("", as_255(size))), None)
    return None if eps is None else {"attack": attack, "eps": eps}


def _of_corruption(variant: str, _settings: Mapping[str, Any]) -> Facets | None:
    if variant == CLEAN:
        return {"corruption": CLEAN}
    corruption, _, severity = variant.rpartition("-")
    return {"corruption": corruption, "severity": int(severity)} if corruption and severity.isdecimal() else None


def _of_clean_images(variant: str, _settings: Mapping[str, Any]) -> Facets | None:
    images, _, classes = variant.partition("-")
    return {"images": CLEAN, "classes": int(classes)} if images == CLEAN and classes.isdecimal() else None


def _of_robustbench(variant: str, settings: Mapping[str, Any]) -> Facets | None:
    if variant == "corruptions":
        return {"mean": "corruptions"}
    return {"attack": variant} if variant in (CLEAN, "autoattack") else _of_corruption(variant, settings)
