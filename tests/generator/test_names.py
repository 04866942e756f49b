"""A name is a folder with a generator, a bundled one or a Hub id, in that order."""

from __future__ import annotations

from pathlib import Path

import pytest

from dim_data import DistilledDataset, Generator
from dim_data.generator import names


@pytest.fixture
def bundle(tiny_codes: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny_codes.save_pretrained(tmp_path / "bundle" / "pets")
    monkeypatch.setattr(names, "BUNDLED", tmp_path / "bundle")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "bundle" / "pets"


@pytest.mark.parametrize("files", [[], ["data_batch_1"], ["config.json"], ["model.safetensors"]])
def test_a_folder_without_a_generator_hides_no_bundled_name(files: list[str], bundle: Path) -> None:
    Path("pets").mkdir()
    for file in files:
        Path("pets", file).write_bytes(b"somebody's")
    assert Generator.from_pretrained("pets").folder == bundle
    assert len(DistilledDataset("pets", ipc=1)) == 3


def test_a_folder_with_a_generator_comes_before_the_bundled_name(bundle: Path, tiny_noise: Generator) -> None:
    tiny_noise.save_pretrained("pets")
    assert Generator.from_pretrained("pets").config == tiny_noise.config


def test_a_folder_given_as_a_path_is_that_folder(bundle: Path) -> None:
    Path("pets").mkdir()
    for source in (Path("pets"), "./pets"):
        with pytest.raises(FileNotFoundError, match=r"folder 'pets' has no config\.json and no model\.safetensors"):
            Generator.from_pretrained(source)
    Path("pets").rmdir()
    assert Generator.from_pretrained(Path("pets")).folder == bundle


def test_a_folder_without_a_generator_hides_no_hub_id(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("alice/pets").mkdir(parents=True)
    asked = []

    def pull(repo_id: str, *, revision: str | None, token: str | None) -> tuple[Path, str]:
        asked.append((repo_id, revision))
        return bundle, "0" * 40

    monkeypatch.setattr(names, "pull", pull)
    assert Generator.from_pretrained("alice/pets", revision="v1").revision == "0" * 40
    assert asked == [("alice/pets", "v1")]


def test_a_hub_that_lacks_it_leaves_the_folder_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("alice/pets").mkdir(parents=True)

    def pull(*args: object, **options: object) -> tuple[Path, str]:
        raise FileNotFoundError("could not get 'alice/pets'")

    monkeypatch.setattr(names, "pull", pull)
    sentence = r"could not get 'alice/pets'. The folder of that name has no config\.json and no model\.safetensors"
    with pytest.raises(FileNotFoundError, match=sentence):
        Generator.from_pretrained("alice/pets")


def test_a_run_that_is_not_done_is_not_looked_for_on_the_hub(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, tiny_codes: Generator
) -> None:
    monkeypatch.setattr(names, "pull", lambda repo_id, **options: (bundle, "0" * 40))
    Path("mine").mkdir()
    assert Generator.from_pretrained("mine/generator").folder == bundle
    Path("mine/run.json").write_text("{}")
    Path("mine/pets").mkdir()
    assert Generator.from_pretrained("mine/pets").folder == bundle, "somebody's repository"
    for source in ("mine/generator", "mine/before_matching", Path("mine/generator")):
        with pytest.raises(FileNotFoundError, match=r"is not made yet: the run in 'mine' is not done, and the same"):
            Generator.from_pretrained(source)
    assert Generator.from_pretrained("mine/generator", revision="v1").revision == "0" * 40, "no folder has revisions"
    tiny_codes.save_pretrained("mine/generator")
    assert Generator.from_pretrained("mine/generator").folder == Path("mine/generator")
    with pytest.raises(FileNotFoundError, match=r"folder 'mine' has no .*: it is that of a run, .* 'mine/generator'"):
        Generator.from_pretrained("mine")
