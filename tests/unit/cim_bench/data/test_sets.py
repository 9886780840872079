"""How sets are called after the set that they were made from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cim_bench.data.sets import CORRUPTED, SHIFTS, origin


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("photos", ("photos", "")),
        ("photos-a", ("photos", "a")),
        ("photos-sketch", ("photos", "sketch")),
        ("imagenet-1k", ("imagenet-1k", "")),
        ("imagenet-a", ("imagenet-1k", "a")),
        ("imagenet-r", ("imagenet-1k", "r")),
        ("imagenet-v2", ("imagenet-1k", "v2")),
        ("imagenet-real", ("imagenet-1k", "real")),
        ("imagenet-c", ("imagenet-1k", "c")),
        ("imagenet-1k-c-generated", ("imagenet-1k", "c-generated")),
        ("imagenet-c-generated", ("imagenet", "c-generated")),  # generated from a set that its user calls imagenet
        ("cifar10-c", ("cifar10", "c")),
        ("cartoons", ("cartoons", "")),
        ("-a", ("-a", "")),
        ("sketch", ("sketch", "")),
    ],
)
def test_origin(name: str, expected: tuple[str, str]) -> None:
    assert origin(name) == expected


@given(st.from_regex(r"[a-z][a-z0-9-]{0,10}", fullmatch=True), st.sampled_from((*SHIFTS, *CORRUPTED)))
def test_a_set_made_from_another_names_it(base: str, change: str) -> None:
    found = origin(f"{base}-{change}")
    assert found.change == change
    assert found.base == base or (found.base, base) == ("imagenet-1k", "imagenet")
