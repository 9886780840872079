"""The ``cim-bench`` command. Heavy modules are imported by the command that needs them, never by ``--help``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cim_bench.cli.arguments import build_parser
from cim_bench.cli.commands import (
    command_clean,
    command_compare,
    command_data,
    command_evaluate,
    command_inspect,
    command_job,
    command_list,
    command_pretrain,
    command_report,
    command_run,
    command_selftest,
    command_visualize,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    options, fields = parser.parse_known_args(arguments)
    if fields and not options.fields:
        parser.error(f"{options.command} has no option {fields[0]!r}; see `cim-bench {options.command} --help`")
    try:
        status: int = COMMANDS[options.command](options, fields)
        return status
    except KeyboardInterrupt:
        print("cim-bench: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except (ValueError, OSError, ArithmeticError) as error:
        from cim_bench.common.errors import one_sentence

        if os.environ.get("CIM_BENCH_DEBUG"):
            raise
        print(f"cim-bench: {one_sentence(error)}", file=sys.stderr)
        return 1


COMMANDS = {
    "pretrain": command_pretrain,
    "evaluate": command_evaluate,
    "run": command_run,
    "demo": command_run,
    "report": command_report,
    "selftest": command_selftest,
    "visualize": command_visualize,
    "inspect": command_inspect,
    "compare": command_compare,
    "data": command_data,
    "list": command_list,
    "job": command_job,
    "clean": command_clean,
}
