"""The examples of docs/python.md, run one after the other as one script."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "python.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 8
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    best, accuracies, why = capsys.readouterr().out.splitlines()
    assert best.split()[0] in ("ce", "mse")
    assert len(accuracies.split(",")) == 3
    assert why
    assert (tmp_path / "my_sweep" / "results.csv").is_file()
