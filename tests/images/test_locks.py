"""Who waits for a folder gets it, whatever became of it meanwhile."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from dim_data.images import held

no_locks = pytest.mark.skipif(os.name == "nt", reason="Windows cannot lock a folder")


@no_locks
def test_one_at_a_time(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(BlockingIOError), held(tmp_path, wait=False):
        pass
    with held(tmp_path, wait=False):
        pass


@no_locks
def test_a_folder_that_its_holder_removed_is_made_again(tmp_path: Path) -> None:
    folder, begun, found = tmp_path / "set", threading.Event(), list[str]()

    def wait() -> None:
        begun.set()
        with held(folder):
            (folder / "written").write_text("")
            found.extend(path.name for path in folder.iterdir())

    waiting = threading.Thread(target=wait)
    with held(folder):
        waiting.start()
        begun.wait()
        threading.Event().wait(0.2)  # by then it waits for the lock
        shutil.rmtree(folder)
    waiting.join()
    assert found == ["written"]


def test_a_folder_that_is_not_there_is_not_made_unasked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), held(tmp_path / "none", make=False):
        pass
    assert not (tmp_path / "none").exists()
