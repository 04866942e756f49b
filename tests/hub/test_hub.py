"""Push and pull with the unmodified client against a Hub on this machine, over TCP and LFS."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import traceback
import uuid
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest
import torch
from PIL import Image

from conftest import TINY, make_data, make_generator, make_spec
from dim_data import DistillConfig, DistilledDataset, Evaluation, Generator, distill, evaluate
from dim_data.distillation import MatchingConfig, PoolConfig, ReconstructionConfig, SelectionConfig
from dim_data.format.config import GeneratorConfig
from dim_data.generator.grids import sample_grid
from dim_data.generator.names import resolve
from dim_data.hub import snapshots
from dim_data.hub.accuracies import Accuracy
from dim_data.hub.card import is_untouched
from dim_data.hub.publishing import publish, stated_accuracies
from hub_server import Blob, HubServer, client_environment, connect, serve_hub, set_offline

RESULT = Evaluation("convnet3", "tuned", 10, 1000, (0, 1, 2), (0.66, 0.67, 0.68), 100_000, 12.0)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serve_hub() as server:
        connect(monkeypatch, server, tmp_path / "home")
        yield server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waits seconds between its retries; here it does not."""
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))


@pytest.fixture
def other() -> Generator:
    """Like ``tiny_codes``, with other weights."""
    config = GeneratorConfig(make_spec(3, 32), "compact", "codes", TINY, codes=120)
    generator = make_generator(config)
    with torch.no_grad():
        for p in generator.parameters():
            p.mul_(0.5)
    return generator


def move_cache(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Use another, empty, cache."""
    patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))


def stop_hub(patch: pytest.MonkeyPatch) -> None:
    """Point the client at a port where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        patch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")


def same_weights(one: Generator, two: Generator) -> bool:
    """Whether two generators have equal weights, in the half precision of a file."""
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    return all(torch.equal(a.to(torch.float16), b.to(torch.float16)) for a, b in pairs)


def head(hub: HubServer, name: str = "alice/pets", ref: str = "main") -> dict[str, Blob]:
    repo = hub.repos[name]
    return repo.commits[repo.refs[ref]]


def put(hub: HubServer, files: dict[str, bytes], name: str = "alice/pets") -> str:
    """Commit files past the client, as somebody else would."""
    repo = hub.repos[name]
    return repo.commit("main", head(hub, name) | {path: Blob(content) for path, content in files.items()}, "an edit")


# Push ------------------------------------------------------------------------------------------------


def test_what_was_loaded_in_four_bits_is_pushed_and_pulled_in_them(hub: HubServer, tmp_path: Path) -> None:
    options = {"width": 40, "top_width": 8, "blocks": 1}
    wide = make_generator(GeneratorConfig(make_spec(3, 32), "compact", "codes", options, codes=30))
    folder = wide.save_pretrained(tmp_path / "first", dtype="int4")
    Generator.from_pretrained(folder).push_to_hub("alice/pets")
    pulled = Generator.from_pretrained("alice/pets")
    assert (pulled.folder / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_a_push_is_one_commit_with_everything(hub: HubServer, tiny_codes: Generator) -> None:
    url = tiny_codes.push_to_hub("alice/pets", training_config={"minutes": 3}, license="mit", commit_message="Pets!")
    repo, files = hub.repos["alice/pets"], head(hub)
    sha = repo.refs["main"]
    assert url == f"{hub.url}/alice/pets/commit/{sha}"
    assert list(repo.messages.values()) == ["initial commit", "Pets!"]
    names = ["README.md", "config.json", "model.safetensors", "samples.png", "training_config.json"]
    assert sorted(files) == [".gitattributes", *names]
    assert json.loads(files["training_config.json"].content) == {"minutes": 3}
    assert json.loads(files["config.json"].content) == tiny_codes.config.to_dict()
    picture = Image.open(io.BytesIO(hub.objects[files["samples.png"].sha256]))
    wanted = sample_grid(tiny_codes, scale=2)
    assert picture.size == wanted.size
    assert picture.tobytes() == wanted.tobytes()
    assert "license: mit" in files["README.md"].content.decode()
    assert not repo.private


def test_a_push_may_be_of_eight_bits_or_four(hub: HubServer, tiny_codes: Generator, tmp_path: Path) -> None:
    kinds: tuple[torch.dtype | Literal["int4"], ...] = (torch.float16, torch.int8, "int4")
    for kind in kinds:
        tiny_codes.push_to_hub("alice/pets", dtype=kind)
        path = tiny_codes.save_pretrained(tmp_path / str(kind), dtype=kind) / "model.safetensors"
        assert hub.objects[head(hub)["model.safetensors"].sha256] == path.read_bytes()


def test_a_second_push_replaces_the_first(hub: HubServer, tiny_codes: Generator, other: Generator) -> None:
    tiny_codes.push_to_hub("alice/pets", training_config={"minutes": 3})
    put(hub, {"notes.txt": b"mine"})
    other.push_to_hub("alice/pets")
    assert same_weights(Generator.from_pretrained("alice/pets"), other)
    assert head(hub)["notes.txt"].content == b"mine"
    # How the first one was made says nothing about the second.
    assert "training_config.json" not in head(hub)
    commits = len(hub.repos["alice/pets"].commits)
    url = other.push_to_hub("alice/pets")
    assert len(hub.repos["alice/pets"].commits) == commits
    assert url.endswith(hub.repos["alice/pets"].refs["main"])


def test_a_bare_name_is_the_users_own(hub: HubServer, tiny_noise: Generator) -> None:
    tiny_noise.push_to_hub("pets")
    assert 'DistilledDataset("alice/pets"' in head(hub)["README.md"].content.decode()


def test_a_push_races_with_another(hub: HubServer, tiny_codes: Generator) -> None:
    tiny_codes.push_to_hub("alice/pets")
    hub.fail("preupload", then=lambda: put(hub, {"notes.txt": b"mine"}))
    with pytest.raises(OSError, match=r"could not push to 'alice/pets': it changed in the meantime. Try again"):
        tiny_codes.push_to_hub("alice/pets", license="mit")
    assert b"license: mit" not in head(hub)["README.md"].content
    tiny_codes.push_to_hub("alice/pets", license="mit")
    assert b"license: mit" in head(hub)["README.md"].content


def test_a_branch_is_made_and_pushed_to(hub: HubServer, tiny_codes: Generator, other: Generator) -> None:
    tiny_codes.push_to_hub("alice/pets")
    for _ in range(2):
        other.push_to_hub("alice/pets", revision="big/one")
    assert same_weights(Generator.from_pretrained("alice/pets"), tiny_codes)
    assert same_weights(Generator.from_pretrained("alice/pets", revision="big/one"), other)


def test_a_pull_request_leaves_main_alone(hub: HubServer, tiny_codes: Generator, other: Generator) -> None:
    tiny_codes.push_to_hub("alice/pets")
    url = other.push_to_hub("alice/pets", create_pr=True, token="hf_bob")
    assert url == f"{hub.url}/alice/pets/discussions/1"
    assert same_weights(Generator.from_pretrained("alice/pets"), tiny_codes)
    assert same_weights(Generator.from_pretrained("alice/pets", revision="refs/pr/1"), other)
    with pytest.raises(ValueError, match="a pull request is made against main: leave out create_pr or revision='x'"):
        other.push_to_hub("alice/pets", create_pr=True, revision="x")
    with pytest.raises(OSError, match="could not push to 'alice/none': the Hub answers 404: no such repository"):
        other.push_to_hub("alice/none", create_pr=True)
    assert "alice/none" not in hub.repos


def test_what_may_not_be_pushed(hub: HubServer, tiny_codes: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    advice = "no such repository, or none that your token may use. Check the name; pass token= or run `hf auth login`"
    tiny_codes.push_to_hub("alice/pets")
    for name, token in (("bob/pets", None), ("alice/pets", "hf_bob"), ("alice/new", "hf_wrong"), ("alice/new", False)):
        with pytest.raises(PermissionError, match=f"could not push to '{name}': the Hub answers 40[13]: {advice}"):
            tiny_codes.push_to_hub(name, token=token)
    with pytest.raises(ValueError, match="'alice/pets' exists and is public: make it private on its page, or leave"):
        tiny_codes.push_to_hub("alice/pets", private=True)
    assert len(hub.repos["alice/pets"].commits) == 2
    with pytest.raises(ValueError, match=r"Cannot have -- or .. in repo_id"):
        tiny_codes.push_to_hub("alice/pe--ts")
    with pytest.raises(ValueError, match=r'Invalid metadata in README.md.\n- "license" must be one of'):
        tiny_codes.push_to_hub("alice/pets", license="unlicensed")
    assert len(hub.repos["alice/pets"].commits) == 2
    stop_hub(monkeypatch)
    with pytest.raises(ConnectionError, match=r"could not push to 'alice/pets': .* Check the name and the network"):
        tiny_codes.push_to_hub("alice/pets")


def test_an_interrupted_upload_changes_nothing(
    hub: HubServer, tiny_codes: Generator, other: Generator, impatient: None
) -> None:
    tiny_codes.push_to_hub("alice/pets")
    before = head(hub)
    hub.fail("PUT /storage", times=100, cut=0)
    with pytest.raises(ConnectionError, match="could not push to 'alice/pets'"):
        other.push_to_hub("alice/pets")
    assert head(hub) == before
    hub.faults.clear()
    hub.fail("PUT /storage", cut=0)
    hub.fail("PUT /storage", status=503)
    other.push_to_hub("alice/pets")
    assert same_weights(Generator.from_pretrained("alice/pets"), other)


def test_a_folder_is_published_as_it_is(hub: HubServer, tiny_codes: Generator, codes_folder: Path) -> None:
    (codes_folder / "training_config.json").write_text('{"minutes": 7.5, "config": {"first": "adversarial"}}')
    (codes_folder / "checkpoint.pt").write_bytes(b"not this")
    before = sorted(path.name for path in codes_folder.iterdir())
    done = publish(codes_folder, "alice/pets", picture=b"png", evaluations=[RESULT])
    assert (done.repo_id, done.kept_card) == ("alice/pets", False)
    assert sorted(path.name for path in codes_folder.iterdir()) == before
    assert "checkpoint.pt" not in head(hub)
    weights = hub.objects[head(hub)["model.safetensors"].sha256]
    assert weights == (codes_folder / "model.safetensors").read_bytes()
    card = head(hub)["README.md"].content.decode()
    assert "| made by | 7.5 minutes, recipe in" in card
    assert "\n- gan\n" in card
    (codes_folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"folder .* has no model.safetensors: give one that save_pretrained"):
        publish(codes_folder, "alice/pets", picture=b"png")


def test_how_it_was_made_travels_along(hub: HubServer, codes_folder: Path, tmp_path: Path) -> None:
    recipe = codes_folder / "training_config.json"
    recipe.write_text('{"minutes": 1}')
    Generator.from_pretrained(codes_folder).push_to_hub("alice/one")
    pulled = Generator.from_pretrained("alice/one")
    pulled.push_to_hub("alice/two")
    for name in ("alice/one", "alice/two"):
        assert json.loads(head(hub, name)["training_config.json"].content) == {"minutes": 1}
    Generator.from_pretrained(codes_folder).push_to_hub("alice/two", training_config={"minutes": 2})
    assert json.loads(head(hub, "alice/two")["training_config.json"].content) == {"minutes": 2}
    recipe.write_text("[1]")
    with pytest.raises(ValueError, match=r"training_config.json must hold a JSON object, got list"):
        pulled.push_to_hub("alice/two", training_config=recipe)
    with pytest.raises(FileNotFoundError):
        pulled.push_to_hub("alice/two", training_config=tmp_path / "none.json")


# The card --------------------------------------------------------------------------------------------


def test_a_hand_edited_card_stays(hub: HubServer, tiny_codes: Generator, codes_folder: Path, tmp_path: Path) -> None:
    tiny_codes.push_to_hub("alice/pets")
    first = head(hub)["README.md"].content
    tiny_codes.push_to_hub("alice/pets", evaluations=[RESULT])
    refreshed = head(hub)["README.md"].content
    assert first != refreshed
    edited = refreshed.replace(b"## Use", b"## How I use it")
    put(hub, {"README.md": edited})
    assert publish(codes_folder, "alice/pets", picture=b"png", license="mit").kept_card
    assert head(hub)["README.md"].content == edited
    # Looking at that card left this machine's cache alone.
    assert not (tmp_path / "home").exists()
    tiny_codes.push_to_hub("alice/pets", evaluations=[RESULT], overwrite_card=True)
    assert head(hub)["README.md"].content == refreshed


def test_somebody_elses_readme_stays(hub: HubServer, tiny_codes: Generator) -> None:
    tiny_codes.push_to_hub("alice/pets")
    for text in (
        b"",
        b"x" * 2_000_001,
        b"# Pets\n",
        b"---\nlicense: mit\n---\n# Pets\n\n---\n",  # no metadata alone, though it ends like that
        "caf\u00e9 <!-- a comment -->\r\n".encode(),
        b"\xff\xfe",
    ):
        put(hub, {"README.md": text})
        with pytest.warns(
            UserWarning, match=r"the README.md of alice/pets was edited by hand and stays, without what is"
        ):
            tiny_codes.push_to_hub("alice/pets", license="mit")
        assert head(hub)["README.md"].content == text


def test_a_readme_that_says_but_a_licence_becomes_a_card(hub: HubServer, tiny_codes: Generator) -> None:
    tiny_codes.push_to_hub("alice/pets")
    for given, wanted in ((None, b"license: cc-by-4.0"), ("mit", b"license: mit")):
        put(hub, {"README.md": b"---\nlicense: cc-by-4.0\n---\n"})
        tiny_codes.push_to_hub("alice/pets", license=given)
        card = head(hub)["README.md"].content
        assert wanted in card
        assert is_untouched(card.decode())


def test_a_push_keeps_what_is_cached(
    hub: HubServer, tiny_codes: Generator, other: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_codes.push_to_hub("alice/pets")
    Generator.from_pretrained("alice/pets")
    other.push_to_hub("alice/pets")
    stop_hub(monkeypatch)
    assert same_weights(Generator.from_pretrained("alice/pets"), tiny_codes)


def test_accuracies_survive_the_trip(hub: HubServer, tiny_codes: Generator) -> None:
    more = Accuracy("resnet10_half", "paper", 50, 200, (5,), 0.5, 0.0)
    tiny_codes.push_to_hub("alice/pets", evaluations=[RESULT, more])
    folder, _ = resolve("alice/pets", None, None)
    assert stated_accuracies(folder) == (Accuracy("convnet3", "tuned", 10, 1000, (0, 1, 2), 0.67, 0.01), more)
    assert is_untouched((folder / "README.md").read_text(encoding="utf-8"))


def test_the_cards_lines_run_as_printed(hub: HubServer, tiny_codes: Generator, tmp_path: Path) -> None:
    tiny_codes.push_to_hub("alice/pets")
    card = head(hub)["README.md"].content.decode()
    (lines,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len([line for line in lines.splitlines() if line.strip()]) == 5
    code = lines + "print(tuple(image.shape), label, len(train_set), train_set.generator.revision)"
    environment = client_environment(hub, tmp_path / "elsewhere", token=None)
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split("\n")[0] == f"(3, 32, 32) 0 150 {hub.repos['alice/pets'].refs['main']}"
    assert run.stderr == ""


# Pull ------------------------------------------------------------------------------------------------


def test_pull_by_branch_tag_and_commit(hub: HubServer, tiny_codes: Generator, other: Generator) -> None:
    repo_id, revisions = "alice/pets", {}
    tiny_codes.push_to_hub(repo_id)
    revisions["v1"] = revisions[hub.repos[repo_id].refs["main"]] = tiny_codes
    hub.repos[repo_id].refs["v1"] = hub.repos[repo_id].refs["main"]
    other.push_to_hub(repo_id)
    revisions["main"] = revisions[None] = revisions[hub.repos[repo_id].refs["main"]] = other
    for revision, wanted in revisions.items():
        dataset = DistilledDataset(repo_id, ipc=2, revision=revision)
        assert same_weights(dataset.generator, wanted)
        commit = hub.repos[repo_id].resolve(revision or "main")
        assert dataset.generator.revision == commit
        assert f"Source: alice/pets at {commit}" in repr(dataset)


def test_only_the_files_of_a_generator_are_fetched(hub: HubServer, tiny_codes: Generator) -> None:
    tiny_codes.push_to_hub("alice/pets", training_config={})
    traps = ["pytorch_model.bin", "modeling.py", "sub/config.json", "samples.png", "config.json.bak", "x/README.md"]
    put(hub, dict.fromkeys(traps, b"trap"))
    hub.requests.clear()
    folder, _ = resolve("alice/pets", None, None)
    wanted = {"README.md", "config.json", "model.safetensors", "training_config.json"}
    assert {path.name for path in folder.rglob("*")} == wanted
    asked = [line.split("/resolve/")[1].split("/", 1)[1] for line in hub.requests if "/resolve/" in line]
    assert set(asked) == wanted


def test_private_repositories_and_tokens(
    hub: HubServer, tiny_codes: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_codes.push_to_hub("alice/secret", private=True)
    assert hub.repos["alice/secret"].private
    monkeypatch.delenv("HF_TOKEN")
    sentence = (
        "could not get 'alice/secret' from the Hub, and it is not in the cache: the Hub answers 40[14]: no such "
        "repository, or none that your token may use. Check the name; pass token= or run `hf auth login`"
    )
    for token in (None, False, "hf_bob", "hf_wrong"):
        with pytest.raises(FileNotFoundError, match=sentence) as caught:
            Generator.from_pretrained("alice/secret", token=token)
        assert "hf_" not in "".join(traceback.format_exception_only(caught.value))
    pulled = DistilledDataset("alice/secret", ipc=1, token="hf_alice").generator
    assert same_weights(pulled, tiny_codes)
    # The storage, another host, never sees the token, and no file keeps it.
    assert not [line for line in hub.authorized if "/storage/" in line]
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"hf_alice" in p.read_bytes()]


@pytest.mark.parametrize(
    ("source", "revision", "sentence"),
    [
        ("alice/none", None, "could not get 'alice/none' from the Hub.*: the Hub answers 404: no such repository"),
        ("alice/pets", "v9", "could not get 'alice/pets' at revision 'v9' from.*it has no branch, tag or commit 'v9'"),
        ("alice/pets", "0" * 40, f"it has no branch, tag or commit '{'0' * 40}'"),
        ("alice/empty", None, "Hub repository 'alice/empty' has no config.json and no model.safetensors: not a gen"),
        ("alice/pe--ts", None, "could not get 'alice/pe--ts' from the Hub.*Cannot have -- or .. in repo_id"),
    ],
)
def test_what_is_not_there(
    hub: HubServer, tiny_codes: Generator, source: str, revision: str | None, sentence: str
) -> None:
    tiny_codes.push_to_hub("alice/pets")
    tiny_codes.push_to_hub("alice/empty")
    hub.repos["alice/empty"].commit("main", {"README.md": Blob(b"# Soon\n")}, "remove")
    hub.requests.clear()
    with pytest.raises(FileNotFoundError, match=sentence):
        Generator.from_pretrained(source, revision=revision)
    assert not [line for line in hub.requests if "/resolve/" in line]


def test_a_gated_repository(hub: HubServer) -> None:
    hub.fail("GET /api", status=403, code="GatedRepo")
    sentence = r"access to it is granted on its page. Ask there, then pass token= or run `hf auth login`"
    with pytest.raises(FileNotFoundError, match=sentence):
        Generator.from_pretrained("alice/pets")


@pytest.mark.parametrize("revision", ["", "../../x", "/etc", "-x", "a b", "a\\b", "a\nb"])
def test_a_revision_is_a_name(hub: HubServer, revision: str) -> None:
    with pytest.raises(ValueError, match="revision must be a branch, tag or commit, got"):
        Generator.from_pretrained("alice/pets", revision=revision)
    assert not hub.requests


def test_a_revision_is_of_a_repository(codes_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"revision='v1' selects a commit of a Hub repository, but .* is a folder"):
        Generator.from_pretrained(codes_folder, revision="v1")


def test_files_that_are_too_large_are_not_fetched(
    hub: HubServer, tiny_codes: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_codes.push_to_hub("alice/pets")
    put(hub, {"README.md": b"x" * 2_000_001})
    with pytest.raises(ValueError, match=r"README.md of 'alice/pets' has 2000001 bytes; the limit is 2000000"):
        Generator.from_pretrained("alice/pets")
    put(hub, {"README.md": b"x"})
    monkeypatch.setitem(snapshots.MAX_BYTES, "model.safetensors", 1000)
    with pytest.raises(ValueError, match=r"model.safetensors of 'alice/pets' has \d+ bytes; the limit is 1000"):
        Generator.from_pretrained("alice/pets")
    assert not [line for line in hub.requests if line.startswith("GET /storage")]


def test_an_interrupted_download_goes_on(hub: HubServer, tiny_codes: Generator, impatient: None) -> None:
    tiny_codes.push_to_hub("alice/pets")
    hub.fail("GET /storage", cut=1000)
    with suppress(FileNotFoundError):  # older clients go on only when called again
        Generator.from_pretrained("alice/pets")
    assert same_weights(Generator.from_pretrained("alice/pets"), tiny_codes)
    assert sum(line.startswith("GET /storage") for line in hub.requests) == 2


def test_a_broken_download_leaves_nothing_half_done(
    hub: HubServer, tiny_codes: Generator, other: Generator, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_codes.push_to_hub("alice/pets")
    first = hub.repos["alice/pets"].refs["main"]
    Generator.from_pretrained("alice/pets")
    other.push_to_hub("alice/pets")
    hub.fail("GET /storage", times=100, cut=0)
    with pytest.raises(FileNotFoundError, match="could not get 'alice/pets' from the Hub, and it is not in the cache"):
        Generator.from_pretrained("alice/pets")
    # The commit before is whole, and the new one is never taken for it.
    assert same_weights(Generator.from_pretrained("alice/pets", revision=first), tiny_codes)
    set_offline(monkeypatch, True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same_weights(Generator.from_pretrained("alice/pets"), tiny_codes)
    set_offline(monkeypatch, False)
    hub.faults.clear()
    assert same_weights(Generator.from_pretrained("alice/pets"), other)


def test_weights_damaged_on_the_way_are_fetched_again(hub: HubServer, tiny_codes: Generator) -> None:
    tiny_codes.push_to_hub("alice/pets")
    hub.fail("GET /storage", flip=True)
    hub.fail("GET .*config.json", flip=True)
    for name in ("config.json", "model.safetensors"):
        with pytest.raises(ValueError, match=f"{name} does not have the hash the Hub gave: it was damaged .*try again"):
            Generator.from_pretrained("alice/pets")
    assert same_weights(Generator.from_pretrained("alice/pets"), tiny_codes)


def test_weights_damaged_in_the_cache_are_fetched_again(hub: HubServer, tiny_codes: Generator) -> None:
    tiny_codes.push_to_hub("alice/pets")
    folder, commit = resolve("alice/pets", None, None)
    for damage in (lambda content: content[:-7], lambda content: content[:-1] + bytes([content[-1] ^ 1])):
        path = (folder / "model.safetensors").resolve()
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(ValueError, match="does not have the hash the Hub gave"):
            Generator.from_pretrained("alice/pets", revision=commit)
        assert same_weights(Generator.from_pretrained("alice/pets", revision=commit), tiny_codes)


def test_truncated_weights_in_a_repository(hub: HubServer, tiny_codes: Generator) -> None:
    tiny_codes.push_to_hub("alice/pets")
    weights = hub.objects[head(hub)["model.safetensors"].sha256]
    put(hub, {"model.safetensors": weights[:-100]})
    with pytest.raises(ValueError, match=r"is not a readable safetensors file \(truncated\?\)"):
        Generator.from_pretrained("alice/pets")


def test_a_link_out_of_the_cache_is_not_followed(hub: HubServer, tiny_codes: Generator, codes_folder: Path) -> None:
    tiny_codes.push_to_hub("alice/pets")
    folder, _ = resolve("alice/pets", None, None)
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(codes_folder / "config.json")
    with pytest.raises(ValueError, match=r"config.json leads out of the Hub cache .*: remove it and try again"):
        Generator.from_pretrained("alice/pets")
    assert (codes_folder / "config.json").is_file()


# Without the Hub -------------------------------------------------------------------------------------


def test_what_is_cached_needs_no_hub(
    hub: HubServer, tiny_codes: Generator, other: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo_id, refs = "alice/pets", {}
    for generator, tag in ((tiny_codes, "v1"), (other, "v2")):
        generator.push_to_hub(repo_id)
        refs[tag] = hub.repos[repo_id].refs[tag] = hub.repos[repo_id].refs["main"]
        Generator.from_pretrained(repo_id)
        Generator.from_pretrained(repo_id, revision=tag)
    hub.requests.clear()
    assert Generator.from_pretrained(repo_id, revision=refs["v1"]).revision == refs["v1"]
    assert not hub.requests
    for offline in (True, False):
        set_offline(monkeypatch, offline)
        stop_hub(monkeypatch)
        for revision in (None, "main", "v1", "v2", refs["v1"], refs["v2"]):
            wanted = tiny_codes if revision in ("v1", refs["v1"]) else other
            assert same_weights(Generator.from_pretrained(repo_id, revision=revision), wanted)
    assert not hub.requests


def test_a_cache_without_its_content_is_filled_again(
    hub: HubServer, tiny_codes: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_codes.push_to_hub("alice/pets")
    folder, commit = resolve("alice/pets", None, None)
    (folder / "model.safetensors").resolve().unlink()
    for revision in (commit, None):
        assert same_weights(Generator.from_pretrained("alice/pets", revision=revision), tiny_codes)
    (folder / "model.safetensors").resolve().unlink()
    stop_hub(monkeypatch)
    for revision in (commit, None):
        with pytest.raises(FileNotFoundError, match=r"and it is not in the cache: .* Check the name and the network"):
            Generator.from_pretrained("alice/pets", revision=revision)


def test_main_moves_only_while_the_hub_answers(hub: HubServer, tiny_codes: Generator, other: Generator) -> None:
    tiny_codes.push_to_hub("alice/pets")
    Generator.from_pretrained("alice/pets")
    other.push_to_hub("alice/pets")
    hub.fail("GET /api", status=503)
    with pytest.warns(
        UserWarning, match=r"took 'alice/pets' from the cache, at commit \w{40}, as the Hub did not say whe"
    ):
        assert same_weights(Generator.from_pretrained("alice/pets"), tiny_codes)
    assert same_weights(Generator.from_pretrained("alice/pets"), other)


def test_nothing_cached_and_no_hub(hub: HubServer, tiny_codes: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_codes.push_to_hub("alice/pets")
    start = time.monotonic()
    hub.fail("GET /api", times=100, status=500)
    for revision in (None, "v1", "1" * 40):
        with pytest.raises(FileNotFoundError, match=r"it is not in the cache: the Hub answers 500: .* Try again later"):
            Generator.from_pretrained("alice/pets", revision=revision)
    set_offline(monkeypatch, True)
    with pytest.raises(FileNotFoundError, match=r"it is not in the cache: HF_HUB_OFFLINE is set. Unset it once"):
        Generator.from_pretrained("alice/pets")
    set_offline(monkeypatch, False)
    stop_hub(monkeypatch)
    for revision in (None, "v1", "1" * 40):
        sentence = "Check the name and the network .*, or give a local folder"
        with pytest.raises(FileNotFoundError, match=sentence):
            Generator.from_pretrained("alice/pets", revision=revision)
    assert time.monotonic() - start < 5


def test_a_hub_that_never_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        mute = HubServer()
        mute.port = silent.getsockname()[1]
        connect(monkeypatch, mute, tmp_path)
        monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
        start = time.monotonic()
        with pytest.raises(FileNotFoundError, match=r"ReadTimeout.* Check the name and the network .*HF_HUB_ETAG_TIME"):
            Generator.from_pretrained("alice/pets")
        assert time.monotonic() - start < 4


# All of it -------------------------------------------------------------------------------------------

JOURNEY = """
import torch
from dim_data import DistilledDataset
from torch.utils.data import DataLoader
from torchvision.transforms import ToTensor

torch.manual_seed(0)
dataset = DistilledDataset("alice/bars", ipc=8, transform=ToTensor())
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(28 * 28, 3))
optimizer = torch.optim.SGD(model.parameters(), 0.01)
for _ in range(2):
    for images, labels in DataLoader(dataset, batch_size=8, shuffle=True):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
print(dataset.generator.revision, loss.item() < 2)
"""


def test_distil_push_pull_train(hub: HubServer, tmp_path: Path, small_classifiers: None) -> None:
    config = DistillConfig(
        options=TINY,
        reconstruction=ReconstructionConfig(2, 8),
        matching=MatchingConfig(2, 8),
        pool=PoolConfig(ages=(1,)),
        selection=SelectionConfig(0),
    )
    generator = distill(make_data(), config=config, out=tmp_path / "run")
    measured = evaluate(generator, make_data(seed=1), ipc=2, epochs=1, seeds=(0, 1))
    url = generator.push_to_hub("alice/bars", private=True, evaluations=[measured])
    commit = url.rsplit("/", 1)[1]
    assert json.loads(head(hub, "alice/bars")["training_config.json"].content)["config"]["matching"]["steps"] == 2
    environment = client_environment(hub, tmp_path / "elsewhere")
    run = subprocess.run([sys.executable, "-c", JOURNEY], env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [commit, "True"]
    assert stated_accuracies(resolve("alice/bars", commit, None)[0]) == (Accuracy.of(measured),)


def test_the_example_publishes(hub: HubServer, tiny_codes: Generator, codes_folder: Path) -> None:
    path = Path(__file__).resolve().parents[2] / "examples" / "publish_generator.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    commit = example.main("alice/pets", str(codes_folder), private=True, steps=2)
    assert hub.repos["alice/pets"].refs["main"] == commit
    assert hub.repos["alice/pets"].private
    text = path.read_text(encoding="utf-8")
    assert len(text[text.index("def main") : text.index("if __name__")].splitlines()) < 30


def test_pulls_at_the_same_time(hub: HubServer, tiny_codes: Generator) -> None:
    tiny_codes.push_to_hub("alice/pets")
    found: list[bool] = []

    def pull() -> None:
        found.append(same_weights(Generator.from_pretrained("alice/pets"), tiny_codes))

    threads = [threading.Thread(target=pull) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


@pytest.mark.skipif(
    not (os.environ.get("HF_TOKEN") and os.environ.get("DIM_DATA_TEST_REAL_HUB")),
    reason="set HF_TOKEN (with write access) and DIM_DATA_TEST_REAL_HUB=1 to use the real Hub",
)
def test_the_real_hub(tiny_codes: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    move_cache(monkeypatch, tmp_path)
    name = f"dim-data-test-{uuid.uuid4().hex[:8]}"
    repo_id = f"{HfApi().whoami()['name']}/{name}"
    try:
        commit = tiny_codes.push_to_hub(repo_id, private=True, evaluations=[RESULT], license="mit").rsplit("/", 1)[1]
        pulled = Generator.from_pretrained(repo_id)
        assert pulled.revision == commit
        assert same_weights(pulled, tiny_codes)
        assert len(stated_accuracies(resolve(repo_id, commit, None)[0])) == 1
    finally:
        HfApi().delete_repo(repo_id, missing_ok=True)
