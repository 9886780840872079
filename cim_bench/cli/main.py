"""The ``cim-bench`` command. Heavy modules are imported by the command that needs them, never by ``--help``."""

from __future__ import annotations

import os
import shutil
import signal
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
from cim_bench.common.interrupts import Terminated, raising_terminated
from cim_bench.common.streams import leave_pipe, open_closed_streams, say, use_plain_marks

NARROWEST = 40  # columns of a terminal: in fewer, help would be broken into letters, or never end


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    open_closed_streams()
    use_plain_marks()
    if shutil.get_terminal_size().columns < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with raising_terminated():
            try:
                return _run(arguments)
            finally:
                sys.stdout.flush()  # here, where a reader that has gone can be caught
    except KeyboardInterrupt as stop:
        terminated = isinstance(stop, Terminated)
        say(f"cim-bench: {'ended by SIGTERM' if terminated else 'interrupted'}; the same command goes on from here")
        return 128 + (signal.SIGTERM if terminated else signal.SIGINT)
    except BrokenPipeError:  # of `cim-bench list | head -1`
        leave_pipe()
        return 128 + signal.SIGPIPE
    except Exception as error:
        from cim_bench.common.errors import one_sentence

        if os.environ.get("CIM_BENCH_DEBUG"):
            raise
        expected = isinstance(error, ValueError | OSError | ArithmeticError)
        say(f"cim-bench: {one_sentence(error)}{'' if expected else '; CIM_BENCH_DEBUG=1 shows where it comes from'}")
        return 1


def _run(arguments: Sequence[str]) -> int:
    """Parse a command line and carry it out; returns the exit status."""
    parser = build_parser()
    options, fields = parser.parse_known_args(arguments)
    if fields and not options.fields:
        parser.error(f"{options.command} has no option {fields[0]!r}; see `cim-bench {options.command} --help`")
    status: int = COMMANDS[options.command](options, fields)
    return status


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
