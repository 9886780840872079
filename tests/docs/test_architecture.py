"""`docs/architecture.md` shows the rooms that there are, and the imports between them that there are."""

from __future__ import annotations

import re

import pytest

from tests.docs.rooms import DOOR, EVERYWHERE, ROOT, arrows, direct_imports, layers, rooms

PAGE = (ROOT / "docs" / "architecture.md").read_text()
PICTURE = re.findall(r"```mermaid\n(.*?)```", PAGE, flags=re.DOTALL)[0]
PAGES = [str(page.relative_to(ROOT)) for page in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])]
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| `")]
ROOM_ROWS = {row[0].strip("`"): row for row in ROWS if row[0].strip("`") in rooms()}


def room(node: str) -> str:
    return DOOR if node == "door" else node


def test_the_arrows_are_the_imports() -> None:
    drawn = [tuple(map(room, pair)) for pair in re.findall(r"^ *(\w+) --> (\w+)$", PICTURE, flags=re.MULTILINE)]
    assert len(set(drawn)) == len(drawn)
    assert PICTURE.count("-->") == len(drawn)
    real = arrows()
    assert set(drawn) - real == set(), "arrows that the code does not have"
    assert real - set(drawn) == set(), "arrows that the picture lacks"


def test_the_picture_has_every_other_room_from_the_top_down() -> None:
    nodes = [room(node) for node in re.findall(r"^ *(\w+)\[", PICTURE, flags=re.MULTILINE)]
    cli, *rest = [name for layer in layers() for name in layer if name not in EVERYWHERE]
    assert nodes == [cli, DOOR, *rest, "base"]


def test_the_table_has_every_room_and_its_imports() -> None:
    assert ROOM_ROWS.keys() == rooms().keys() == {DOOR, *(name for layer in layers() for name in layer)}
    told = {name: set(re.findall(r"`(\w+)`", row[3])) for name, row in ROOM_ROWS.items()}
    assert told == direct_imports()
    assert all(row[1] and row[2] for row in ROOM_ROWS.values())


def test_no_arrow_goes_up() -> None:
    height = {name: -level for level, layer in enumerate(layers()) for name in layer} | {DOOR: -0.5}
    assert [pair for pair in arrows() if height[pair[0]] <= height[pair[1]]] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_named_files_exist(page: str) -> None:
    """Links to files, and paths of source files between backticks."""
    file = ROOT / page
    text = re.sub(r"```.*?```", "", file.read_text(), flags=re.DOTALL)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (file.parent / link).exists()] == []
    named = re.findall(r"`((?:cim_bench|pretrain|evals|reports|tests|benchmarks)/[\w./-]*)`", text)
    invented = [name for name in named if not re.search("NAME|PAPER", name) and not (ROOT / name).exists()]
    assert invented == []
