"""The model card: its metadata, its text, and the accuracies that go in and come out."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from typing import Any

import pytest
from huggingface_hub import ModelCard

from conftest import TINY, make_spec
from dim_data import Evaluation, Generator, GeneratorConfig
from dim_data.hub.accuracies import Accuracy, agree, read_accuracies
from dim_data.hub.card import is_untouched, render_card
from dim_data.images.specs import KNOWN_SPECS

CIFAR = GeneratorConfig(KNOWN_SPECS["cifar10"], "compact", "codes", TINY, codes=50_000)
ACCURACIES = (
    Accuracy("convnet3", "tuned", 10, 1000, (0, 1, 2), 0.6671, 0.0031),
    Accuracy("resnet10_half", "paper", 50, 200, (5,), 0.5, 0.0),
)


def render(config: GeneratorConfig = CIFAR, **more: Any) -> str:
    return render_card("alice/pets", config, **{"size": 3_210_000, **more})


def test_the_metadata_is_what_the_hub_reads() -> None:
    data = ModelCard(render(license="mit", accuracies=ACCURACIES)).data.to_dict()
    (index,) = data.pop("model-index")
    assert data == {
        "library_name": "dim-data",
        "pipeline_tag": "unconditional-image-generation",
        "license": "mit",
        "datasets": ["uoft-cs/cifar10"],
        "tags": ["dataset-distillation", "arxiv:2303.04707"],
        "metrics": ["accuracy"],
    }
    (result,) = index["results"]
    assert index["name"] == "pets"
    assert result["task"]["type"] == "image-classification"
    assert result["dataset"] == {"type": "uoft-cs/cifar10", "name": "CIFAR-10", "split": "test"}
    first = result["metrics"][0]
    assert (first["type"], first["value"]) == ("accuracy", 0.6671)
    wanted = {"classifier": "convnet3", "recipe": "tuned", "ipc": 10, "epochs": 1000, "seeds": [0, 1, 2], "std": 0.0031}
    assert first["args"] == wanted


def test_a_card_says_what_was_tested_on() -> None:
    held_out = replace(ACCURACIES[0], tested_on="9,223 digits of held-out training photos")
    card = render(accuracies=(held_out, ACCURACIES[1]))
    assert "**Tested on 9,223 digits of held-out training photos.**" in card
    assert "Tested on" not in render(accuracies=ACCURACIES)
    assert read_accuracies(card) == (held_out, ACCURACIES[1])
    (results,) = (index["results"] for index in ModelCard(card).data.to_dict()["model-index"])
    assert sorted(result["dataset"]["split"] for result in results) == [
        "9,223 digits of held-out training photos",
        "test",
    ]
    assert str(held_out).endswith("(3 seeds, 1000 epochs; tested on 9,223 digits of held-out training photos)")
    assert read_accuracies(re.sub(r"tested_on: .*", "tested_on: 3", card)) == ACCURACIES[1:]


def test_a_set_with_terms_of_its_own_states_them() -> None:
    svhn = replace(CIFAR, spec=KNOWN_SPECS["svhn"])
    for license in (None, "other"):
        card = render(svhn, license=license)
        data = ModelCard(card).data.to_dict()
        assert (data["license"], data["license_name"]) == ("other", "svhn-non-commercial")
        assert data["license_link"] == "http://ufldl.stanford.edu/housenumbers/"
        assert (
            "The generator: for non-commercial use only. It is derived from SVHN, which is for non-commercial" in card
        )
    data = ModelCard(render(svhn, license="cc-by-nc-4.0")).data.to_dict()
    assert data["license"] == "cc-by-nc-4.0"
    assert "license_name" not in data
    other = replace(svhn, spec=replace(svhn.spec, classes=tuple("abcdefghij")))
    assert "license" not in ModelCard(render(other)).data.to_dict()


def test_eurosat_is_credited_though_no_set_of_that_name_can_be_read() -> None:
    spec = Generator.from_pretrained("eurosat").spec
    text = render(replace(CIFAR, spec=spec), license="mit", accuracies=ACCURACIES)
    assert (
        "It is derived from [EuroSAT](https://github.com/phelber/EuroSAT) (Helber et al. 2019), which is under" in text
    )
    assert "contains modified Copernicus Sentinel data." in text
    assert "`dim-data evaluate alice/pets --test PATH`, with real test images there, measures it again." in text
    other = render(replace(CIFAR, spec=replace(spec, classes=tuple("abcdefghij"))))
    assert "Copernicus" not in other
    assert "# pets\n" in other


def test_a_bundled_generator_has_no_commits_to_pin() -> None:
    text = render_card("cifar10", CIFAR, size=3_210_000)
    assert "revision" not in text
    assert "`fixed=True` pins one set of pictures." in text


def test_one_seed_has_no_spread_to_state() -> None:
    one = Accuracy("convnet3", "tuned", 10, 1000, (4,), 0.6671, 0.0)
    card = render(license="mit", accuracies=(one,))
    (result,) = ModelCard(card).data.to_dict()["model-index"][0]["results"]
    assert result["metrics"][0]["args"] == {
        "classifier": "convnet3", "recipe": "tuned", "ipc": 10, "epochs": 1000, "seeds": [4],
    }  # fmt: skip
    assert read_accuracies(card) == (one,)


def test_what_is_not_known_is_left_out() -> None:
    text = render(GeneratorConfig(make_spec(1, 28), "dim", options={"width": 4}))
    data = ModelCard(text).data.to_dict()
    assert not {"license", "datasets", "model-index"} & set(data)
    assert "Not measured yet: `dim-data evaluate alice/pets --test PATH`, with real test images there," in text
    assert "not stated" in text
    assert "| latents | random numbers, new for each picture |" in text
    assert "in place of the real ones, new ones in every epoch." in text
    # A set that only has the name of a known one is not that one.
    mine = replace(make_spec(), name="cifar10")
    assert "uoft-cs" not in render(GeneratorConfig(mine, "compact", "codes", TINY, codes=3))


def test_the_text_says_what_it_is() -> None:
    training = {"minutes": 12.5, "images_shown": 1_234_567, "refining_minutes": 7.5, "config": {"first": "adversarial"}}
    text = render(accuracies=ACCURACIES, training=training)
    for part in (
        "# pets: CIFAR-10, distilled\n",
        "CIFAR-10 in a file of 3.21 MB",
        "in place of the real ones, other ones from epoch to epoch, until all were shown.",
        "`revision=...` pins a commit, `fixed=True` pins one set of pictures.",
        "`dim-data evaluate alice/pets --data-root DIR`, with the real files in `DIR`, measures it again.",
        "![Samples, one class a row](samples.png)",
        "| images | 32x32, RGB |",
        "| classes | 10: airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck |",
        "| latents | 50000 stored codes |",
        "| made by | 12.5 minutes, 7.5 minutes of refining its codes, 1,234,567 images shown, recipe in [",
        "| convnet3 | tuned | 10 | 1000 | 0, 1, 2 | 66.71% +- 0.31% |",
        "- gan\n",
        "(https://huggingface.co/datasets/uoft-cs/cifar10)",
        "arXiv:2303.04707",
    ):
        assert part in text
    assert all(len(line) <= 240 for line in text.splitlines())


def test_its_use_is_five_lines_of_python() -> None:
    for config in (CIFAR, GeneratorConfig(make_spec(1, 28), "dim", options={"width": 4})):
        (code,) = re.findall(r"```python\n(.*?)```", render(config), re.DOTALL)
        ast.parse(code)
        assert len([line for line in code.splitlines() if line]) == 5
        assert f"Normalize({config.spec.mean}, {config.spec.std})" in code


@pytest.mark.parametrize(
    "name", ["---", "a|b", "`x`", "<b>", "[x](y)", "{repo_id}", "# x", "a: b", "'", '"', "\u202e", "\\"]
)
def test_any_name_makes_a_sound_card(name: str) -> None:
    spec = replace(make_spec(), name=name, classes=(name, "b", "c"))
    text = render(GeneratorConfig(spec, "compact", "codes", TINY, codes=3), accuracies=ACCURACIES)
    assert read_accuracies(text) == ACCURACIES
    assert ModelCard(text).data.eval_results[0].dataset_name == name
    (row,) = [line for line in text.splitlines() if line.startswith("| classes")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 3


def test_an_edit_shows() -> None:
    text = render()
    assert is_untouched(text)
    edits = (
        text + "\n",
        text[:-1],
        " " + text,
        text.replace("\n", "\r\n"),
        text.replace("pets", "pet", 1),
        "",
        "# x\n",
    )
    assert not any(is_untouched(edit) for edit in edits)
    assert not is_untouched(text + text)


def test_an_evaluation_is_stated_in_hundredths_of_a_per_cent() -> None:
    result = Evaluation("convnet3", "tuned", 10, 1000, (0, 1, 2), (0.66121, 0.66129, 0.66133), 100_000, 12.0)
    accuracy = Accuracy.of(result)
    assert (accuracy.mean, accuracy.std) == (0.6613, 0.0001)
    assert read_accuracies(render(accuracies=[accuracy])) == (accuracy,)
    assert str(accuracy) == "convnet3, recipe tuned, ipc 10: 66.13% +- 0.01% (3 seeds, 1000 epochs)"


def card_with(metric: str) -> str:
    """A card whose model-index has one metric, as YAML in one line."""
    index = f"[{{name: x, results: [{{task: {{type: t}}, dataset: {{type: d, name: d}}, metrics: [{metric}]}}]}}]"
    return f"---\nmodel-index: {index}\n---\n# x\n"


ARGS = "classifier: convnet3, recipe: tuned, ipc: 10, epochs: 5, seeds: [0], std: 0.0"


def test_foreign_metrics_are_left_out() -> None:
    assert len(read_accuracies(card_with(f"{{type: accuracy, value: 0.5, args: {{{ARGS}}}}}"))) == 1
    for old, new in (
        ("type: accuracy", "type: f1"),
        ("value: 0.5", "value: 50"),
        ("value: 0.5", "value: .nan"),
        ("value: 0.5", "value: true"),
        ("ipc: 10", "ipc: 10.5"),
        ("ipc: 10", "ipc: 0"),
        ("epochs: 5", "epochs: 99999999999999999999"),
        ("seeds: [0]", "seeds: []"),
        ("seeds: [0]", "seeds: [zero]"),
        ("seeds: [0], std: 0.0", "seeds: [0, 1]"),
        ("seeds: [0]", "seeds: 1"),
        ("classifier: convnet3", "classifier: [1]"),
        ("recipe: tuned, ", ""),
        ("recipe: tuned", 'recipe: "\\x1b[31m"'),
        (f"args: {{{ARGS}}}", "args: 3"),
    ):
        metric = f"{{type: accuracy, value: 0.5, args: {{{ARGS}}}}}"
        assert old in metric
        assert read_accuracies(card_with(metric.replace(old, new))) == ()
    for text in ("", "# no metadata\n", "---\n---\n", "---\nlicense: mit\n---\n", "---\nmodel-index: []\n---\n"):
        assert read_accuracies(text) == ()


@pytest.mark.parametrize(
    "metadata",
    [
        "a: [",
        "- x",
        "a: *b",
        "model-index: 3",
        "model-index: [3]",
        "1: 2",
        "ignore_metadata_errors: 1",
        "a: !!python/name:os.system",
    ],
)
def test_metadata_that_cannot_be_read_raises(metadata: str) -> None:
    with pytest.raises(ValueError, match="the card's metadata cannot be read"):
        read_accuracies(f"---\n{metadata}\n---\n# x\n")


@pytest.mark.parametrize(
    ("stated", "measured", "wanted"),
    [
        ((0.60, 0.0, 1), (0.609, 0.0, 1), True),
        ((0.60, 0.0, 1), (0.612, 0.0, 1), False),
        ((0.60, 0.03, 3), (0.66, 0.03, 3), True),
        ((0.60, 0.03, 3), (0.68, 0.03, 3), False),
        ((0.60, 0.01, 100), (0.62, 0.01, 100), False),
    ],
)
def test_means_agree_within_chance(stated: Any, measured: Any, wanted: bool) -> None:
    one, two = (Accuracy("c", "r", 1, 1, tuple(range(seeds)), mean, std) for mean, std, seeds in (stated, measured))
    assert agree(one, two) is wanted
    assert agree(two, one) is wanted


def test_a_sample_agrees_within_its_own_chance() -> None:
    stated = Accuracy("convnet3", "tuned", 10, 1000, (0, 1, 2), 0.6, 0.002)
    found = replace(stated, mean=0.563)
    assert not agree(stated, found)
    assert agree(stated, found, sample=1000)  # of which the standard error is 1.5 points
    assert not agree(stated, replace(stated, mean=0.54), sample=1000)
