"""A generator that is saved again is the same generator: the same bits, the same pictures."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conftest import make_generator, make_spec
from dim_data import Generator, GeneratorConfig
from dim_data.cli import main
from dim_data.hub import Accuracy
from dim_data.hub.card import render_card

FORMATS = [torch.float16, torch.bfloat16, torch.int8, torch.float32, "int4"]


def pictures(generator: Generator) -> torch.Tensor:
    labels = torch.arange(30) % generator.spec.num_classes
    return generator.synthesize(labels, torch.arange(30) // generator.spec.num_classes, seed=5)


@pytest.fixture(scope="module")
def wide() -> Generator:
    """Wide enough that ``int4`` finds layers to round."""
    options = {"width": 40, "top_width": 8, "blocks": 1}
    return make_generator(GeneratorConfig(make_spec(3, 32), "compact", "codes", options, codes=30))


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("kind", ["codes", "gaussian"])
def test_saved_again_is_the_same_file(dtype: torch.dtype | str, kind: str, wide: Generator, tmp_path: Path) -> None:
    generator = wide if kind == "codes" else wide.forget_codes(4)
    first = generator.save_pretrained(tmp_path / "first", dtype=dtype)
    loaded = Generator.from_pretrained(first)
    second = loaded.save_pretrained(tmp_path / "second")
    then, now = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    assert then.keys() == now.keys()
    assert all(then[name].dtype == now[name].dtype and torch.equal(then[name], now[name]) for name in then)
    assert torch.equal(pictures(Generator.from_pretrained(second)), pictures(loaded))


def test_another_process_paints_the_same_from_what_was_saved_again(wide: Generator, tmp_path: Path) -> None:
    loaded = Generator.from_pretrained(wide.save_pretrained(tmp_path / "first", dtype="int4"))
    loaded.save_pretrained(tmp_path / "second")
    code = (
        "import sys, torch; torch.set_num_threads(1); from dim_data import Generator\n"
        "y = torch.arange(30) % 3\n"
        "print(bytes(Generator.from_pretrained(sys.argv[1]).synthesize(y, torch.arange(30) // 3, 5).numpy()).hex())"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "second"], capture_output=True, text=True, check=True)
    assert bytes.fromhex(run.stdout) == bytes(pictures(loaded).numpy())


def test_fewer_codes_leave_the_decoder_as_it_was_stored(wide: Generator, tmp_path: Path) -> None:
    first = wide.save_pretrained(tmp_path / "first", dtype="int4")
    few = Generator.from_pretrained(first).keep_codes(9).save_pretrained(tmp_path / "few")
    then, now = load_file(first / "model.safetensors"), load_file(few / "model.safetensors")
    decoder = [name for name in then if name.startswith("decoder.")]
    assert any(then[name].dtype == torch.uint8 for name in decoder)
    assert all(torch.equal(then[name], now[name]) for name in decoder)


def test_forgotten_codes_leave_the_decoder_as_it_was_stored(wide: Generator, tmp_path: Path) -> None:
    first = wide.save_pretrained(tmp_path / "first", dtype=torch.int8)
    noise = Generator.from_pretrained(first).forget_codes(4).save_pretrained(tmp_path / "noise")
    then, now = load_file(first / "model.safetensors"), load_file(noise / "model.safetensors")
    assert all(torch.equal(then[name], now[name]) for name in then if name.startswith("decoder."))
    assert now["means"].dtype == torch.int8


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float16),
        (torch.int8, torch.int8),
        ("int4", torch.int8),
    ],
    ids=str,
)
def test_what_has_changed_is_written_in_the_files_format(
    dtype: torch.dtype | str, wanted: torch.dtype, wide: Generator, tmp_path: Path
) -> None:
    first = wide.save_pretrained(tmp_path / "first", dtype=dtype)
    loaded = Generator.from_pretrained(first)
    changed = "decoder.body.1.first.weight"
    loaded.get_parameter(changed).mul_(1.01)
    loaded.get_parameter(changed)[0, 0].mul_(0.5)
    then = load_file(first / "model.safetensors")
    now = load_file(loaded.save_pretrained(tmp_path / "second") / "model.safetensors")
    assert now[changed].dtype == wanted
    assert then.keys() == now.keys()
    for name in then.keys() - {changed, f"{changed}.scale"}:
        assert then[name].dtype == now[name].dtype
        assert torch.equal(then[name], now[name])
    again = Generator.from_pretrained(tmp_path / "second").get_parameter(changed)
    bound = float(loaded.get_parameter(changed).abs().max()) / 200
    torch.testing.assert_close(again, loaded.get_parameter(changed), atol=bound, rtol=0)


@pytest.mark.parametrize("dtype", [torch.int8, "int4"], ids=str)
def test_bits_asked_for_again_are_the_same_bits(dtype: torch.dtype | str, wide: Generator, tmp_path: Path) -> None:
    first = wide.save_pretrained(tmp_path / "first", dtype="int4")
    second = Generator.from_pretrained(first).save_pretrained(tmp_path / "second", dtype=dtype)
    then, now = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    layers = [name for name in then if then[name].dtype == torch.uint8 and name != "codes"]
    assert layers
    assert all(torch.equal(then[name], now[name]) for name in (*layers, *(f"{name}.scale" for name in layers)))


def test_a_number_format_asked_for_is_given(wide: Generator, tmp_path: Path) -> None:
    loaded = Generator.from_pretrained(wide.save_pretrained(tmp_path / "first", dtype="int4"))
    now = load_file(loaded.save_pretrained(tmp_path / "second", dtype=torch.float16) / "model.safetensors")
    assert {t.dtype for name, t in now.items() if name.startswith("decoder.")} == {torch.float16}


def test_a_copy_that_travelled_is_saved_as_it_was_read(wide: Generator, tmp_path: Path) -> None:
    first = wide.save_pretrained(tmp_path / "first", dtype="int4")
    loaded = Generator.from_pretrained(first)
    wanted = (first / "model.safetensors").read_bytes()
    for number, other in enumerate((copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded)), loaded.double())):
        assert (other.save_pretrained(tmp_path / str(number)) / "model.safetensors").read_bytes() == wanted


def test_weights_in_half_precision_are_not_those_that_were_read(wide: Generator, tmp_path: Path) -> None:
    loaded = Generator.from_pretrained(wide.save_pretrained(tmp_path / "first", dtype=torch.float32))
    name = "decoder.body.1.first.weight"
    kept = loaded.get_parameter(name).half()
    now = load_file(loaded.half().save_pretrained(tmp_path / "second") / "model.safetensors")
    assert torch.equal(now[name], kept.float())


def test_a_new_generator_is_written_in_float16(wide: Generator, tmp_path: Path) -> None:
    now = load_file(wide.save_pretrained(tmp_path) / "model.safetensors")
    assert {tensor.dtype for name, tensor in now.items() if name.startswith("decoder.")} == {torch.float16}


def test_the_command_shrinks_codes_and_keeps_the_decoder(wide: Generator, tmp_path: Path) -> None:
    first = wide.save_pretrained(tmp_path / "first", dtype="int4")
    assert main(["shrink", str(first), "--codes", "9", "--out", str(tmp_path / "few")]) == 0
    then, now = load_file(first / "model.safetensors"), load_file(tmp_path / "few" / "model.safetensors")
    assert all(torch.equal(then[name], now[name]) for name in then if name.startswith("decoder."))


@pytest.fixture
def described(wide: Generator, tmp_path: Path) -> Path:
    """A generator's folder with a card, a training configuration and a file of somebody's."""
    folder = wide.save_pretrained(tmp_path / "described", dtype="int4")
    measured = [Accuracy("convnet3", "tuned", 10, 1000, (0, 1, 2), 0.9, 0.002)]
    card = render_card("me/wide", wide.config, size=(folder / "model.safetensors").stat().st_size, accuracies=measured)
    (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / "training_config.json").write_text(json.dumps({"minutes": 77}), encoding="utf-8")
    (folder / "notes.txt").write_text("mine")
    return folder


def test_what_describes_other_weights_does_not_stay_beside_new_ones(described: Path) -> None:
    loaded = Generator.from_pretrained(described)
    loaded.keep_codes(9).save_pretrained(described)
    assert {path.name for path in described.iterdir()} == {"config.json", "model.safetensors", "notes.txt"}


@pytest.mark.parametrize("changed", ["weights", "config", "format", "damaged"])
def test_any_change_makes_other_weights(changed: str, described: Path) -> None:
    loaded = Generator.from_pretrained(described)
    if changed == "weights":
        loaded.get_parameter("decoder.body.1.first.weight").mul_(1.5)
    elif changed == "config":
        config = json.loads((described / "config.json").read_text())
        config["spec"]["classes"][0] = "renamed"
        (described / "config.json").write_text(json.dumps(config))
    elif changed == "damaged":
        (described / "model.safetensors").unlink()  # what was read of it is still mapped
        (described / "model.safetensors").write_bytes(b"no weights")
    loaded.save_pretrained(described, dtype=torch.float16 if changed == "format" else None)
    assert not (described / "README.md").exists()
    assert not (described / "training_config.json").exists()


@pytest.mark.parametrize("travelled", [False, True])
def test_what_describes_the_same_weights_stays(travelled: bool, described: Path) -> None:
    before = {path.name: path.read_bytes() for path in described.iterdir()}
    loaded = Generator.from_pretrained(described)
    (copy.deepcopy(loaded) if travelled else loaded).save_pretrained(described)
    assert {path.name: path.read_bytes() for path in described.iterdir()} == before


def test_a_card_that_was_edited_and_the_readme_of_no_generator_stay(
    described: Path, wide: Generator, tmp_path: Path
) -> None:
    card = described / "README.md"
    card.write_text(card.read_text(encoding="utf-8").replace("## Use", "## How I use it"), encoding="utf-8")
    edited = card.read_bytes()
    Generator.from_pretrained(described).keep_codes(9).save_pretrained(described)
    assert card.read_bytes() == edited
    assert not (described / "training_config.json").exists()
    (tmp_path / "README.md").write_text("# My project")
    (tmp_path / "training_config.json").write_text("{}")
    wide.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "# My project"
    assert (tmp_path / "training_config.json").exists()
