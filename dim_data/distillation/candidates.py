"""What a run would ship at a step, how good that is, and the best of it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace

import torch

from dim_data.distillation.curves import save_curves
from dim_data.distillation.loops import StageStep
from dim_data.distillation.pool import elders
from dim_data.distillation.presets import DistillConfig
from dim_data.distillation.reconstruction import encode_all
from dim_data.distillation.refining import refine
from dim_data.distillation.runs import CURVES, METRICS, RESULT, Run
from dim_data.format import SAMPLES, TRAINING_CONFIG, write_atomically
from dim_data.generator import Generator, opinions, save_grid
from dim_data.images import LabelledImages, torch_defaults
from dim_data.protocol import LoopState, evaluate

__all__ = ["kept_images", "make_candidate", "score_candidate", "ship_best"]


@torch_defaults()
def make_candidate(state: LoopState, data: LabelledImages, config: DistillConfig, device: torch.device) -> Generator:
    """The averaged generator as it would be shipped: with the codes of ``data``, or with what remains of them."""
    average: Generator = state.parts["average"].module
    if config.first == "adversarial":
        return average
    stored = encode_all(average, state.parts["average_encoder"].module, data, device)
    return stored if config.source == "codes" else stored.forget_codes(config.rank)


@torch_defaults()
def kept_images(data: LabelledImages, config: DistillConfig) -> LabelledImages:
    """The images whose codes are stored."""
    return _some(data, config.max_codes or len(data), config.seed)


def _some(data: LabelledImages, count: int, seed: int) -> LabelledImages:
    """At most ``count`` random images, the same share of every class, but at least one of each."""
    if count >= len(data):
        return data
    labels = data.labels.cpu()
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    chosen = []
    for label in range(data.spec.num_classes):
        members = order[labels[order] == label]
        chosen.append(members[: max(1, len(members) * count // len(data))])
    return data.subset(torch.cat(chosen).sort().values.to(data.images.device))


@torch_defaults()
def score_candidate(
    run: Run,
    state: LoopState,
    train: LabelledImages,
    held_out: LabelledImages,
    step: int,
    device: torch.device,
) -> None:
    """Downstream accuracy of the average on held-out training images; keep it if it is the best so far."""
    config, classes = run.config, train.spec.num_classes
    # Part of the bank is enough to compare checkpoints.
    some = _some(train, config.selection_images, config.seed)
    ipc = max(1, config.selection_images // (classes * 100))
    epochs = max(1, config.selection_images // (classes * ipc))
    candidate = make_candidate(state, some, config, device)
    score = evaluate(candidate, held_out, ipc=ipc, epochs=epochs, seeds=(config.seed,), device=device).mean
    run.scores.append({"step": step, "accuracy": score})
    run.log({"stage": "selection", "step": step, "accuracy": score})
    save_grid(candidate, run.out / SAMPLES)
    if run.best is None or score > run.best["accuracy"]:
        encoder = state.parts.get("average_encoder")
        run.best = {
            "step": step,
            "accuracy": score,
            "generator": {k: v.clone() for k, v in state.parts["average"].module.state_dict().items()},
            "encoder": {k: v.clone() for k, v in encoder.module.state_dict().items()} if encoder else None,
        }


def ship_best(
    run: Run,
    full: LabelledImages,
    device: torch.device,
    on_step: Callable[[StageStep], object] | None,
    should_stop: Callable[[], bool] | None,
) -> Generator:
    """Save the best candidate with every training image's code, refined if so wished, and what describes the run."""
    state = run.states["main"]
    if run.best is not None:
        state.parts["average"].module.load_state_dict(run.best["generator"])
        if run.best["encoder"] is not None:
            state.parts["average_encoder"].module.load_state_dict(run.best["encoder"])
    kept = kept_images(full, run.config)
    if run.config.soft_labels:
        teachers = elders(run.states["pool"], run.config.pool_ages)
        kept = replace(kept, soft=opinions(teachers, kept.images, kept.spec, run.config.label_temperature))
    result = make_candidate(state, kept, run.config, device)
    if run.config.refining_looks:
        refining = run.add("refining", LoopState({"generator": result.requires_grad_(False).eval()}, run.config.seed))
        members = elders(run.states["pool"], run.config.pool_ages)
        size, looks = run.config.matching_batch, run.config.refining_looks
        run.drive(refine(refining, kept, members, looks, batch_size=size, device=device), on_step, should_stop)
    folder = result.save_pretrained(run.out / RESULT)
    config = run.config
    shown = config.first_steps * config.first_batch + config.matching_steps * config.matching_batch
    aging = config.pool_aging * config.matching_batch if config.first == "adversarial" else 0
    pooled = 50 * sum(config.pool_ages) + config.matching_steps * aging if config.matching_steps else 0
    facts = {
        "config": config.to_dict(),
        "minutes": round(run.elapsed / 60, 1),
        "images_shown": shown,
        "images_shown_to_pool": pooled,
        "selection": run.scores,
        "chosen_step": run.best["step"] if run.best else config.matching_steps,
        "device": str(device),
        "torch": torch.__version__,
    }
    text = json.dumps(facts, indent=2) + "\n"
    write_atomically(folder / TRAINING_CONFIG, lambda path: path.write_text(text, encoding="utf-8"))
    result = Generator.from_pretrained(folder, device=device)
    save_grid(result, run.out / SAMPLES)
    if importlib.util.find_spec("matplotlib") is not None:
        save_curves(run.out / METRICS, run.out / CURVES)
    return result
