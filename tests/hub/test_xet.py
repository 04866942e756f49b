"""Push and pull through Xet, the Hub's storage by chunks, into a folder on this machine.

The client takes a ``local://`` address for its storage, which nothing documents: where it does not, these tests are
skipped. They run in processes of their own, for the storage's client reads its environment once.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dim_data import Generator
from hub_server import HubServer, client_environment, serve_hub

pytestmark = pytest.mark.skipif(importlib.util.find_spec("hf_xet") is None, reason="hf_xet is not installed")

PUSH = """
import sys
from dim_data import Generator
print(Generator.from_pretrained(sys.argv[1]).push_to_hub("alice/pets"))
print(Generator.from_pretrained(sys.argv[2]).push_to_hub("alice/pets", create_pr=True))
"""
PULL = """
import sys, torch
from dim_data import Generator
from dim_data.hub.client import pull
for folder, revision in zip(sys.argv[1:], (None, "refs/pr/1")):
    pulled, wanted = Generator.from_pretrained("alice/pets", revision=revision), Generator.from_pretrained(folder)
    pairs = zip(pulled.state_dict().values(), wanted.state_dict().values())
    print(pulled.revision, all(torch.equal(a.half(), b.half()) for a, b in pairs))
folder, _ = pull("alice/pets")
content = (folder / "model.safetensors").resolve()
content.write_bytes(content.read_bytes()[::-1])
try:
    pull("alice/pets")
except ValueError as error:
    print("does not have the hash" in str(error))
print((pull("alice/pets")[0] / "model.safetensors").stat().st_size)
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    (tmp_path / "storage").mkdir()
    with serve_hub(xet=tmp_path / "storage") as server:
        yield server


def run(hub: HubServer, home: Path, code: str, *arguments: str) -> str:
    """What a process prints that runs ``code`` with an empty cache in ``home``."""
    environment = client_environment(hub, home, xet=True)
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    if "local:" in done.stderr and "scheme" in done.stderr:
        pytest.skip("this hf_xet has no local storage")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_push_and_pull(hub: HubServer, codes_folder: Path, noise_folder: Path, tmp_path: Path) -> None:
    folders = (str(codes_folder), str(noise_folder))
    urls = run(hub, tmp_path / "1", PUSH, *folders).split()
    repo, stored = hub.repos["alice/pets"], hub.xet_files()
    main, request = repo.refs["main"], repo.refs["refs/pr/1"]
    assert urls == [f"{hub.url}/alice/pets/commit/{main}", f"{hub.url}/alice/pets/discussions/1"]
    # Large files went to the storage, not through LFS, and are found under their hash there.
    assert not hub.objects
    blob = repo.commits[main]["model.safetensors"]
    assert stored[blob.sha256][1] == blob.size
    saved = Generator.from_pretrained(codes_folder).save_pretrained(tmp_path / "saved")
    assert hashlib.sha256((saved / "model.safetensors").read_bytes()).hexdigest() == blob.sha256
    # And they come from there, and come again when they are damaged.
    printed = run(hub, tmp_path / "2", PULL, *folders).split()
    assert printed == [main, "True", request, "True", "True", str(blob.size)]
    assert not [line for line in hub.requests if "/storage/" in line]
