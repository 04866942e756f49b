"""What ``--help`` of the benchmarks says."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import pytest

import processes
import scale
import speed
from accuracy import measure, missing, prior, refine
from options import HelpFormatter

Reader = Callable[[Sequence[str]], argparse.Namespace]


def test_a_default_is_said_once() -> None:
    parser = argparse.ArgumentParser(formatter_class=HelpFormatter)
    parser.add_argument("source", default="x", help="a name")
    parser.add_argument("--seeds", nargs="+", default=[0, 1], help="one training each")
    parser.add_argument("--out", default="here", help="a folder (default: results)")
    parser.add_argument("--list", action="store_true", help="only print")
    text = parser.format_help()
    assert "one training each (default: 0 1)" in text
    assert "a folder (default: results)" in text
    assert text.count("default") == 2


@pytest.mark.parametrize("module", [measure, missing, prior, refine, speed, scale, processes])
def test_every_option_of_a_command_is_explained(module: object, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[argparse.ArgumentParser] = []

    def stop(self: argparse.ArgumentParser, *args: object) -> None:
        seen.append(self)
        raise InterruptedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    read: Reader = module.read_arguments  # type: ignore[attr-defined]
    with pytest.raises(InterruptedError):
        read([])
    (parser,) = seen
    assert parser.formatter_class is HelpFormatter
    assert [action.dest for action in parser._actions if not action.help] == []
