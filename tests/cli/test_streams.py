"""Standard streams as they are found, given to commands in this process; and one real pipe."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from dim_data.cli import main
from dim_data.cli.progress import interruptible
from dim_data.generator.model import Generator


def without_reader(buffered: bool) -> io.TextIOWrapper:
    """A pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return io.TextIOWrapper(open(writer, "wb", buffering=-1 if buffered else 0), write_through=not buffered)


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_reader_that_left_is_no_error(
    buffered: bool,
    options: list[str],
    noise_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", without_reader(buffered))
    assert main(["info", str(noise_folder), *options]) == 141
    sys.stdout.close()
    assert capsys.readouterr().err == ""


def test_help_for_a_reader_that_left(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", without_reader(buffered=True))
    assert main(["--help"]) == 141
    sys.stdout.close()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("arguments", [["info", "nonsense"], ["bogus"]])
def test_complaints_that_nobody_reads(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", without_reader(buffered=True))
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    assert code == (1 if arguments[0] == "info" else 2)
    sys.stderr.close()


def test_a_real_pipe(noise_folder: Path) -> None:
    command = [sys.executable, "-m", "dim_data", "info", str(noise_folder), "--json"]
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs /dev/full")
def test_a_full_disk_for_the_output(
    noise_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", open("/dev/full", "w"))  # noqa: SIM115
    assert main(["info", str(noise_folder)]) == 1
    sys.stdout.close()
    assert capsys.readouterr().err == "dim-data: could not write the output: [Errno 28] No space left on device\n"


def test_a_terminal_without_unicode(tiny_noise: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(tiny_noise.spec, name="caf\xe9", classes=("\u732b", "\u72d7", "bird"))
    generator = Generator(replace(tiny_noise.config, spec=spec))
    folder = generator.save_pretrained(tmp_path / "\u5199\u771f")
    said = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(said, encoding="ascii"))
    assert main(["info", str(folder)]) == 0
    assert sys.stdout.errors == "strict"
    assert b"3: \\u732b, \\u72d7, bird" in said.getvalue()
    assert b"as caf\\xe9" in said.getvalue()


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_that_is_closed(
    name: str, noise_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, name, None)
    assert main(["info", str(noise_folder)]) == 0
    assert main(["info", "nonsense"]) == 1
    assert getattr(sys, name) is None
    said = capsys.readouterr()
    assert (said.out == "") == (name == "stdout")
    assert (said.err == "") == (name == "stderr")


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    asked: list[bool] = []

    def work() -> None:
        with interruptible() as interrupted:
            asked.append(interrupted())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert asked == [False]
