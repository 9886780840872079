"""Every command explains itself."""

from __future__ import annotations

import pytest

from cim_bench.cli.main import COMMANDS, main


@pytest.mark.parametrize("command", [*COMMANDS, "run demo", "pretrain cim_vit_base"])
def test_help_is_printed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    if command in ("run", "pretrain"):  # their fields are those of a recipe
        command += " demo" if command == "run" else " mae_vit_base"
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code in (0, None)
    assert "usage: cim-bench" in capsys.readouterr().out.lower()
