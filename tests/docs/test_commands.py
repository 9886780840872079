"""Every command line of README, the pages and the recipes' docstrings is one that the parser takes, options and all."""

from __future__ import annotations

import re
import shlex
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from cim_bench import registry
from cim_bench.cli import parsing
from cim_bench.cli.arguments import build_parser
from cim_bench.data.classes import imagenet_wnids
from tests.docs.conftest import blocks
from tests.docs.rooms import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RECIPES = sorted((ROOT / "cim_bench" / "recipes").glob("*.py"))
PARSERS = {
    "pretrain": parsing.parse_pretrain,
    "run": parsing.parse_run,
    "demo": parsing.parse_run,
    "evaluate": parsing.parse_evaluate,
    "selftest": parsing.parse_selftest,
}
START = re.compile(r"""(?:^|(?<=[\s`]))(?:cim-bench|"\$\(command -v cim-bench\)") (?=[a-z-])""")
DOCSTRING = re.compile(r"``(cim-bench [^`]*)``")
# What stands for something of the reader's, where any text would not do.
PLACEHOLDERS = {"RECIPE": "cim_vit_base", "VALUE": "1.0", "my_format.py": "FORMAT_FILE", "runs/demo": "RUNS"}
# Plug-ins that pages show, by the group and name that they register.
SHOWN = {"evaluators": ("nearest_mean", "new_evaluator.md"), "executors": ("commands", "new_executor.md")}


def code(text: str) -> list[str]:
    """Lines of indented and fenced blocks of a page without their comments, continued lines joined, and inline code."""
    fenced = [
        line for block in re.findall(r"```(?:sh|bash|console|text)?\n(.*?)```", text, re.S) for line in joined(block)
    ]
    plain = re.sub(r"```.*?```", "", text, flags=re.S)
    indented = [line[4:] for line in joined(plain) if line.startswith("    ")]
    spans = [re.sub(r"\s+", " ", span) for span in re.findall(r"(?<!`)``?([^`]+)``?(?!`)", plain)]
    return [*(re.sub(r"\s+#.*", "", line) for line in [*fenced, *indented]), *spans]


def joined(text: str) -> list[str]:
    return re.sub(r" *\\\n *", " ", text).splitlines()


def commands() -> list[tuple[str, str]]:
    """Page and command, from ``cim-bench`` on."""
    lines = [(file, line) for file in PAGES for line in code(file.read_text())]
    lines += [(file, " ".join(span.split())) for file in RECIPES for span in DOCSTRING.findall(file.read_text())]
    found = [
        (str(file.relative_to(ROOT)), line[match.end() :].strip())
        for file, line in lines
        if (match := START.search(line))
    ]
    return list(dict.fromkeys(found))


def words(line: str) -> list[str]:
    """Arguments of a command, without what stands for the reader's own further ones."""
    return [PLACEHOLDERS.get(word, word) for word in shlex.split(line.replace("...", ""))]


def parse(arguments: list[str]) -> Any:
    """What a command would carry out, or what argparse makes of it; nothing is run.

    Raises:
        ValueError: As the command would.
        SystemExit: If argparse refuses it.
    """
    options, fields = build_parser().parse_known_args(arguments)
    if fields and not options.fields:
        raise ValueError(f"{options.command} has no option {fields[0]}")
    return PARSERS[options.command](options, fields) if options.command in PARSERS else options


@pytest.fixture(scope="session")
def empty_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of a sample of ImageNet, which a recipe of ours looks through, without images."""
    root = tmp_path_factory.mktemp("data")
    for wnid in imagenet_wnids():
        (root / "imagenet-sample" / "val" / wnid).mkdir(parents=True)
    return root


@pytest.fixture
def readers_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe_file: Path, empty_sample: Path) -> None:
    """A folder with what the pages call ``my_recipe.py``, and the plug-ins that they show, as if installed."""
    monkeypatch.chdir(recipe_file.parent)
    (recipe_file.parent / "benchmarks").symlink_to(ROOT / "benchmarks")
    monkeypatch.setenv("CIM_BENCH_TEST_DATA", str(empty_sample))
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, page in SHOWN.values():
        (module,) = blocks(page, "python")
        (tmp_path / f"shown_{name}.py").write_text(module)
    kinds = {"nearest_mean": "NearestMean", "commands": "Commands"}
    points = {
        f"cim_bench.{group}": [EntryPoint(name, f"shown_{name}:{kinds[name]}", f"cim_bench.{group}")]
        for group, (name, _) in SHOWN.items()
    }
    monkeypatch.setattr(registry, "entry_points", lambda group: points.get(group, []))


@pytest.mark.parametrize(("page", "line"), commands())
def test_the_parser_takes_it(page: str, line: str, readers_own: None) -> None:
    arguments = words(line)
    known = build_parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    if len(arguments) == 1 or arguments in (["data", "check"], ["data", "corrupt"]):
        assert arguments[0] in known or arguments[0].startswith("--")  # named, not called
    elif arguments[-1] == "--help":
        assert arguments[0] in known
    else:
        assert parse(arguments) is not None


def test_commands_are_found_where_they_are() -> None:
    found = commands()
    assert len(found) > 45
    assert {page for page, _ in found} >= {
        "README.md", "docs/results/robustness.md", "docs/pretexts/cim.md", "docs/new_executor.md",
        "cim_bench/recipes/shifts.py",
    }  # fmt: skip
    assert {line.split()[0] for _, line in found} == {*build_parser()._subparsers._group_actions[0].choices}  # type: ignore[union-attr]


def test_a_wrong_option_or_value_would_be_found(readers_own: None) -> None:
    for line in ("run demo --machine.subset-only True", "run demo --nosuch 1", "inspect FILE --data.root IMAGENET"):
        with pytest.raises(ValueError, match=r"[Tt]rue|nosuch|no option"):
            parse(words(line))


# An option alone must be one of a command of ours, with no value, a number or a text.
OURS = (
    ["inspect", "X"],
    ["clean", "X"],
    ["selftest", "X"],
    ["evaluate", "X", "--evaluators", "finetune"],
    ["pretrain", "cim_vit_base"],
)
THEIRS = {"--standalone": "torchrun", "--cpu --num_processes 2": "accelerate", "--images": "benchmarks"}
THEIRS |= {"--masks FOLDER --classes 8": "benchmarks"}
OPTIONS = sorted({span for page in PAGES for span in code(page.read_text()) if span.startswith("--")} - THEIRS.keys())


def is_taken(arguments: list[str]) -> bool:
    try:
        return parse(arguments) is not None
    except (ValueError, SystemExit):
        return False


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_that_is_named_exists(option: str, readers_own: None) -> None:
    own = shlex.split(option.replace("NAME", "finetune" if "evaluators" in option else "local"))
    values: tuple[list[str], ...] = ([], ["1"], ["imagenet"], ["bilinear"]) if len(own) == 1 else ([],)
    assert any(is_taken([*command, *own, *value]) for command in OURS for value in values)


SCRIPTS = sorted(
    {
        line
        for page in PAGES
        for line in code(page.read_text())
        if re.search(r"\b(python|pytest) .*\.py\b", line) and "-m " not in line
    }
)


@pytest.mark.parametrize("line", SCRIPTS)
def test_scripts_and_tests_exist_with_their_options(line: str) -> None:
    arguments = shlex.split(line.rpartition("&& ")[2])
    (script,) = [ROOT / word for word in arguments if word.endswith(".py")]
    assert script.is_file()
    if script.parent.name == "benchmarks":
        text = script.read_text() + (ROOT / "benchmarks" / "timing.py").read_text()
        assert [word for word in arguments if word.startswith("--") and f'"{word}"' not in text] == []


def test_environments_of_tox_exist() -> None:
    text = (ROOT / "tox.ini").read_text()
    named = {name for page in PAGES for name in re.findall(r"tox run -e (\w+)", page.read_text())}
    assert named
    assert [name for name in named if f"[testenv:{name}]" not in text] == []
