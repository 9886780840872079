"""What the ``cim-bench`` command understands; fields of recipes are parsed later, by tyro. Imports nothing heavy."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from cim_bench import __version__

EPILOG = """\
examples:
  cim-bench demo                                    a whole benchmark on real photographs, in minutes
  cim-bench pretrain cim_vit_base --data.root IMAGENET --training.epochs 100
  cim-bench evaluate runs/cim/checkpoint --evaluators knn linear_probe --data.root IMAGENET
  cim-bench run my_recipe.py --plan                 what would run, what is finished
  cim-bench inspect mae_pretrain_vit_base.pth       what a public file is, key by key
  cim-bench report runs/demo                        the tables, again

Every field of a recipe can be overridden by its dotted name; `cim-bench run RECIPE --help` lists them.
"""


def build_parser() -> argparse.ArgumentParser:
    """All commands; fields of recipes are parsed later, by tyro."""
    parser = argparse.ArgumentParser(
        prog="cim-bench",
        description="Evaluate self-supervised vision checkpoints.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"cim-bench {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, help_: str, *, output: str | None = None, fields: bool = False) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help_, description=help_, add_help=not fields)
        command.set_defaults(fields=fields)
        if output is not None:
            command.add_argument("--output", type=Path, default=None, help=f"folder for results (default: {output})")
        return command

    pretrain = add("pretrain", "Train a checkpoint by a recipe.", output="runs/RECIPE", fields=True)
    pretrain.add_argument("recipe", help="a recipe's name (see `cim-bench list`) or a .py file")
    evaluate = add("evaluate", "Measure checkpoints.", output="runs/evaluate", fields=True)
    evaluate.add_argument(
        "checkpoints", nargs="*", metavar="CHECKPOINT", help="folders of ours, public files, or timm:NAME"
    )
    _add_foreign(evaluate)
    evaluate.add_argument(
        "--drop-head", action="store_true", help="take the backbones of classifiers, as of supervised training"
    )
    evaluate.add_argument(
        "--evaluators", nargs="+", default=["knn", "linear_probe"], help="evaluators, or recipes of one"
    )
    evaluate.add_argument("--seed", type=int, default=0, help="of every random choice")
    run = add("run", "Run a benchmark: every subject through every evaluator.", output="runs/NAME", fields=True)
    run.add_argument("recipe", help="a recipe's name (see `cim-bench list`) or a .py file")
    demo = add("demo", "Pre-train and evaluate on real photographs, print the table.", output="runs/demo", fields=True)
    demo.set_defaults(recipe="demo")
    for command in (evaluate, run, demo):
        text = "what runs the jobs, by name; its settings are --executor.SETTING, such as --executor.slots 2"
        command.add_argument("--executor", default="", metavar="NAME", help=text)
        text = "EVALUATOR.SETTING and two or more values: each is an evaluator, and a row, of its own"
        command.add_argument("--sweep", nargs="+", default=(), metavar="VALUE", help=text)
    for command in (run, demo):
        command.add_argument("--plan", action="store_true", help="print the jobs and what is missing, run nothing")
        text = "run those alone whose names fit, such as 'CIM-*/knn', with what they need; one GPU a subject, say"
        command.add_argument("--jobs", nargs="+", default=(), metavar="PATTERN", help=text)
    inspect = add("inspect", "Recognise a checkpoint: format, architecture, keys, features.")
    inspect.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder of ours, a public file, or timm:NAME")
    _add_foreign(inspect)
    selftest = add(
        "selftest", "Compare a released classifier with its published accuracy on clean images.", fields=True
    )
    selftest.add_argument("checkpoint", metavar="CHECKPOINT", nargs="?", help="a fine-tuned file, or timm:NAME")
    _add_foreign(selftest)
    report = add("report", "Print and save the tables of finished runs.", output="RUNS")
    report.add_argument("runs", type=Path, metavar="RUNS", help="folder that holds records")
    report.add_argument(
        "--tables",
        default="cim_cvpr2023",
        help="a name under `tables` of `cim-bench list`; matrix puts each published figure beside the measured one "
        "(default: %(default)s)",
    )
    visualize = add(
        "visualize", "Draw what a checkpoint's pretext sees and predicts, or what segmentation jobs predict."
    )
    visualize.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help="a checkpoint that `pretrain` made; or the folder of a job of segmentation, or of a subject with one",
    )
    visualize.add_argument(
        "images",
        type=Path,
        nargs="*",
        metavar="IMAGE",
        help="image files; of segmentation, another job beside the first",
    )
    visualize.add_argument(
        "--output", type=Path, default=Path("visualize.png"), help="the picture (default: %(default)s)"
    )
    visualize.add_argument("--seed", type=int, default=0, help="of the exemplars")
    text = "of segmentation: folder of the images (default: where the run had them)"
    visualize.add_argument("--root", default=None, help=text)
    text = "of segmentation: file of class names, where the folder of the images has none"
    visualize.add_argument("--class-list", default=None, metavar="FILE", help=text)
    compare = add("compare", "Paired tests of two subjects, from the outcome of every image.")
    compare.add_argument("a", type=Path, metavar="A", help="folder of a subject, such as runs/demo/CIM")
    compare.add_argument("b", type=Path, metavar="B", help="folder of the other, such as runs/demo/random")
    compare.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")
    job = add("job", "Run jobs of a benchmark that `run` or `evaluate` wrote; executors call this.")
    job.add_argument("file", type=Path, metavar="FILE", help="OUTPUT/benchmarks/HASH.json")
    job.add_argument("names", nargs="*", metavar="NAME", help="jobs, such as CIM/knn; several share one pass")
    _add_load(job)
    text = "take lists of names as JSON lines from standard input, tell progress in JSON lines on standard output"
    job.add_argument("--follow", action="store_true", help=text)
    clean = add("clean", "List, and remove if asked to, what the present benchmark of an output folder does not need.")
    clean.add_argument(
        "runs", type=Path, metavar="RUNS", help="output folder, or a folder of some; nothing may run in it"
    )
    clean.add_argument("--delete", action="store_true", help="remove what is listed")
    _add_load(clean)
    _add_data(add("data", "Check image sets, or write a corrupted one."))
    add("list", "List recipes, pretexts, evaluators, executors and tables.")
    return parser


def _add_foreign(parser: argparse.ArgumentParser) -> None:
    """What a public checkpoint cannot tell about itself."""
    parser.add_argument("--method", default="", help="the method, where keys do not tell it; another one is refused")
    parser.add_argument("--arch", default="", help="the architecture, where shapes do not tell it; others are refused")
    parser.add_argument(
        "--format", default="", metavar="NAME", help="read it as this format, or that of a .py file (IT IS EXECUTED)"
    )
    parser.add_argument(
        "--normalisation",
        default="",
        choices=("imagenet", "inception", "clip", "sat493m"),
        help="input normalisation, where the file does not tell it; inception is a mean and std of 0.5",
    )
    parser.add_argument("--image-size", type=int, default=None, help="input size to resample positions to")
    parser.add_argument("--epochs", type=float, default=None, help="pre-training epochs, where the file does not tell")
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="load a file that is more than tensors: IT CAN RUN ANY CODE, only for files you trust",
    )


def _add_load(parser: argparse.ArgumentParser) -> None:
    text = "module or recipe file with classes of your own that the benchmark uses; IT IS EXECUTED"
    parser.add_argument("--load", action="append", default=[], metavar="MODULE", help=text)


def _add_data(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "Recognise image sets on disk and check counts, classes, pixel sizes and order."
    check = actions.add_parser("check", help=text, description=text)
    check.add_argument("roots", type=Path, nargs="+", metavar="ROOT", help="folder of an image set")
    check.add_argument("--deep", action="store_true", help="decode every file, not a few of each split")
    check.add_argument("--workers", type=int, default=None, help="processes of --deep (default: all cores)")
    check.add_argument("--bad-files", type=Path, default=None, metavar="FILE", help="list unreadable images (--deep)")
    text = "Write the fifteen corruptions of an image folder in the layout of ImageNet-C."
    corrupt = actions.add_parser("corrupt", help=text, description=text)
    corrupt.add_argument("root", metavar="ROOT", help="image folder, with the split below it")
    corrupt.add_argument("out", type=Path, metavar="OUT", help="folder to fill; a run that was stopped goes on")
    corrupt.add_argument("--split", default="val", help="of ROOT (default: %(default)s)")
    corrupt.add_argument("--corruptions", nargs="+", default=None, help="some of the fifteen (default: all)")
    corrupt.add_argument("--severities", nargs="+", type=int, default=[1, 2, 3, 4, 5], help="(default: 1 to 5)")
    corrupt.add_argument("--size", type=int, default=224, help="pixels a side (default: %(default)s)")
    corrupt.add_argument("--crop-pct", type=float, default=0.875, help="kept by the crop (default: %(default)s)")
    corrupt.add_argument("--seed", type=int, default=0, help="of every random choice (default: %(default)s)")
    corrupt.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
