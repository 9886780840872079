"""Names of outcome columns: those of version 0.1.0, and no two alike."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cim_bench.records.facets import FACETS, Facets, as_255, check_facets, column_name, facet_key
from cim_bench.records.upgrade import column_facets

SETTINGS: dict[str, Any] = {"eps": [4 / 255, 2 / 255, 0.5 / 255]}


@pytest.mark.parametrize(
    ("evaluator", "facets", "name"),
    [
        ("finetune", {}, "prediction"),
        ("knn", {"k": 20}, "k=20"),
        ("adversarial", {"attack": "clean"}, "clean"),
        ("adversarial", {"attack": "pgd", "eps": 4 / 255}, "pgd"),
        ("adversarial", {"attack": "pgd", "eps": 2 / 255}, "pgd eps=2/255"),
        ("adversarial", {"attack": "APGD", "eps": 0.5 / 255}, "APGD eps=0.5/255"),
        ("corruptions", {"corruption": "clean"}, "clean"),
        ("corruptions", {"corruption": "jpeg_compression", "severity": 3}, "jpeg_compression-3"),
        ("shifts", {"images": "clean", "classes": 200}, "clean-200"),
        ("robustbench", {"attack": "autoattack"}, "autoattack"),
        ("robustbench", {"corruption": "fog", "severity": 5}, "fog-5"),
        ("robustbench", {"mean": "corruptions"}, "corruptions"),
        ("nearest_mean", {"nearest_mean.variant": "cls token=2"}, "cls token=2"),
    ],
)
def test_names_are_those_of_0_1_0_and_are_understood_again(evaluator: str, facets: Facets, name: str) -> None:
    assert column_name(facets, SETTINGS) == name
    assert column_name(dict(reversed(facets.items())), SETTINGS) == name  # JSON may order them otherwise
    assert column_facets(name, evaluator, SETTINGS) == facets


def test_other_facets_are_spelt_out() -> None:
    facets: Facets = {"mypkg.stride": 4, "k": 20, "mypkg.mode": "dense", "mypkg.scale": 0.5}
    assert column_name(facets, {}) == "k=20 dense mypkg.scale=0.5 mypkg.stride=4"
    assert column_name({"attack": "pgd", "eps": 2 / 255}, {}) == "pgd eps=2/255"  # of a protocol without sizes
    assert column_name({"attack": "pgd", "eps": 2 / 255}, {"eps": 2 / 255}) == "pgd eps=2/255"


words = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
not_clean = words.filter(lambda word: word != "clean")
FAMILIES: dict[str, st.SearchStrategy[Facets]] = {
    "knn": st.builds(lambda k: {"k": k}, st.integers(1, 10**6)),
    "adversarial": st.one_of(
        st.just({"attack": "clean"}),
        st.builds(lambda name, eps: {"attack": name, "eps": eps}, not_clean, st.sampled_from(SETTINGS["eps"])),
    ),
    "corruptions": st.one_of(
        st.just({"corruption": "clean"}),
        st.builds(lambda name, level: {"corruption": name, "severity": level}, words, st.integers(1, 5)),
    ),
    "shifts": st.one_of(st.just({}), st.builds(lambda n: {"images": "clean", "classes": n}, st.integers(1, 10**4))),
    "theirs": st.builds(lambda text: {"theirs.variant": text}, words),
}


@given(st.data(), st.sampled_from(sorted(FAMILIES)))
def test_no_two_of_a_protocol_share_a_name(data: st.DataObject, evaluator: str) -> None:
    one, two = data.draw(FAMILIES[evaluator]), data.draw(FAMILIES[evaluator])
    names = column_name(one, SETTINGS), column_name(two, SETTINGS)
    assert (names[0] == names[1]) == (facet_key(one) == facet_key(two))
    assert column_facets(names[0], evaluator, SETTINGS) == one
    check_facets(one)


def test_every_facet_has_a_meaning() -> None:
    assert all(text and "\n" not in text for text in FACETS.values())


@pytest.mark.parametrize(("value", "text"), [(1 / 255, "1/255"), (0.5 / 255, "0.5/255"), (8 / 765, "2.66667/255")])
def test_values_in_grey_levels(value: float, text: str) -> None:
    assert as_255(value) == text


@pytest.mark.parametrize(
    ("evaluator", "variant"),
    [("knn", "cosine"), ("adversarial", "pgd eps=9/255"), ("corruptions", "fog"), ("shifts", "clean"), ("theirs", "x")],
)
def test_what_no_protocol_of_0_1_0_wrote_is_kept_as_it_is(evaluator: str, variant: str) -> None:
    assert column_facets(variant, evaluator, SETTINGS) == {f"{evaluator}.variant": variant}
