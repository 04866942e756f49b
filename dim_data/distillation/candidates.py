"""What a run would ship at a step, how good that is, and the best of it."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dim_data.distillation.folders import CURVES, METRICS
from dim_data.distillation.loops import StageStep
from dim_data.distillation.pictures import decorate, save_curves
from dim_data.distillation.pool import oldest_members
from dim_data.distillation.presets import DistillConfig
from dim_data.distillation.prior_training import prior_training_on_images
from dim_data.distillation.reconstruction import encode_all
from dim_data.distillation.refining import refine
from dim_data.distillation.runs import Run
from dim_data.format import RESULT, RUN, SAMPLES, TRAINING_CONFIG, read_json, write_json
from dim_data.generator import Generator, class_shares, opinions, save_grid
from dim_data.images import LabelledImages, permitted, torch_defaults
from dim_data.networks import ALONE, Ranks
from dim_data.protocol import LoopState, evaluate

__all__ = [
    "averages",
    "draw_pictures",
    "kept_images",
    "make_candidate",
    "note_candidate",
    "score_candidates",
    "ship_best",
]


@torch_defaults()
def make_candidate(
    average: Generator,
    encoder: nn.Module | None,
    data: LabelledImages,
    config: DistillConfig,
    device: torch.device,
    remembers: bool = False,
    ranks: Ranks = ALONE,
) -> Generator:
    """The averaged generator as it would be shipped: with the codes of ``data``, or with what remains of them.

    One that ``remembers`` has the codes in any case. Each of the ``ranks`` encodes some of the images.
    """
    if encoder is None:
        return average
    stored = encode_all(average, encoder, data, device, ranks)
    return stored if config.source == "codes" or remembers else stored.forget_codes(config.rank)


@torch_defaults()
def kept_images(data: LabelledImages, config: DistillConfig) -> LabelledImages:
    """The images whose codes are stored."""
    return _some(data, config.max_codes or len(data), config.seed)


def _some(data: LabelledImages, count: int, seed: int) -> LabelledImages:
    """At most ``count`` random images, the same share of every class, but at least one of each: at least so many."""
    if count >= len(data):
        return data
    members = data.members(torch.randperm(len(data), generator=torch.Generator().manual_seed(seed)))
    shares = class_shares(torch.tensor([len(rows) for rows in members]), max(count, len(members)))
    chosen = [rows[:share] for rows, share in zip(members, shares.tolist(), strict=True)]
    return data.subset(torch.cat(chosen).sort().values.to(data.images.device))


def averages(state: LoopState) -> tuple[Generator, nn.Module | None]:
    """The averaged generator and, where there is one, the averaged encoder."""
    encoder = state.parts.get("average_encoder")
    return state.parts["average"].module, None if encoder is None else encoder.module


def note_candidate(run: Run, state: LoopState, step: int) -> None:
    """Keep the average as it is now, to be scored."""
    generator, encoder = (
        None if net is None else {k: v.clone() for k, v in net.state_dict().items()} for net in averages(state)
    )
    run.waiting.append({"step": step, "generator": generator, "encoder": encoder})


@torch_defaults()
def score_candidates(
    run: Run, state: LoopState, train: LabelledImages, held_out: LabelledImages, device: torch.device
) -> None:
    """Downstream accuracy on held-out training images of those that wait; keep the best so far.

    Ranks score one each, at the same time.
    """
    config, classes, ranks = run.config, train.spec.num_classes, run.ranks
    # Part of the bank is enough to compare checkpoints.
    shown = config.selection.images
    some = _some(train, shown, config.seed)
    ipc = max(1, shown // (classes * 100))
    epochs = max(1, shown // (classes * ipc))

    def score(one: dict[str, Any]) -> float:
        networks = copy.deepcopy(averages(state))
        for network, weights in zip(networks, (one["generator"], one["encoder"]), strict=True):
            if network is not None:
                network.load_state_dict(weights)
        # What a decoder is worth to a prior that is not there yet, the codes tell better than a Gaussian of them.
        candidate = make_candidate(*networks, some, config, device, remembers=config.learns_prior)
        options: dict[str, Any] = {"ipc": ipc, "epochs": epochs, "seeds": (config.seed,), "alone": True}
        found = evaluate(candidate, held_out, **options, device=device).mean
        if ranks.first:
            decorate(run.out / SAMPLES, partial(save_grid, candidate))
        return found

    for start in range(0, len(run.waiting), ranks.size):
        turn = run.waiting[start : start + ranks.size]
        found = score(turn[ranks.rank]) if ranks.rank < len(turn) else 0.0
        ranks.barrier()
        for one, accuracy in zip(turn, ranks.each("scores", found), strict=False):
            run.scores.append({"step": one["step"], "accuracy": accuracy})
            run.log({"stage": "selection", "step": one["step"], "accuracy": accuracy})
            if run.best is None or accuracy > run.best["accuracy"]:
                run.best = {**one, "accuracy": accuracy}
    run.waiting = []


def ship_best(
    run: Run,
    full: LabelledImages,
    parts: tuple[LabelledImages, LabelledImages],
    device: torch.device,
    on_step: Callable[[StageStep], object] | None,
    should_stop: Callable[[], bool] | None,
) -> Generator:
    """Save the best candidate and what describes the run.

    With codes it has every training image's, refined if so wished; with noise a prior learns from the first of the
    ``parts`` of the images, and how well is looked at on the second.
    """
    config, state = run.config, run.states["main"]
    if run.best is not None:
        state.parts["average"].module.load_state_dict(run.best["generator"])
        if run.best["encoder"] is not None:
            state.parts["average_encoder"].module.load_state_dict(run.best["encoder"])
    if config.learns_prior:
        return _save(run, _with_prior(run, *parts, device, on_step, should_stop), device)
    kept = kept_images(full, config)
    if config.labels.soft:
        kept = replace(kept, soft=_soft_labels(run, kept, device))
    result = make_candidate(*averages(state), kept, config, device, ranks=run.ranks)
    if config.refining.looks:
        refining = run.add("refining", LoopState({"generator": result.requires_grad_(False).eval()}, config.seed))
        members = oldest_members(run.states["pool"], config.pool.ages)
        loop = refine(refining, kept, members, config.refining, device=device, ranks=run.ranks)
        run.drive(loop, on_step, should_stop)
    return _save(run, result, device)


def _soft_labels(run: Run, data: LabelledImages, device: torch.device) -> Tensor:
    """What the pool's oldest say of the images, each rank having asked about some."""
    teachers = oldest_members(run.states["pool"], run.config.pool.ages)

    def ask(part: slice) -> Tensor:
        batches = (data.images[place : min(place + 250, part.stop)] for place in range(part.start, part.stop, 250))
        return opinions(teachers, batches, data.spec, run.config.labels.temperature)

    return torch.cat(list(run.ranks.map(ask, run.ranks.chunks(len(data), 250), device)))


def _with_prior(
    run: Run,
    train: LabelledImages,
    held_out: LabelledImages,
    device: torch.device,
    on_step: Callable[[StageStep], object] | None,
    should_stop: Callable[[], bool] | None,
) -> Generator:
    config, state = run.config, run.states["main"]
    generator, encoder = averages(state)
    if encoder is None:
        raise ValueError("only a decoder of codes learns a prior")
    taught = config.matching.steps and any(config.pool.ages)
    watcher = oldest_members(run.states["pool"], config.pool.ages)[0] if taught else None
    mirror = "flip" in permitted(config.augmentation, train.spec)
    training = prior_training_on_images(
        generator,
        encoder,
        train,
        held_out,
        watcher,
        config.prior,
        mirror=mirror,
        seed=config.seed + 3,
        device=device,
        ranks=run.ranks,
    )
    run.add("prior", training.state)
    run.drive(training.steps(), on_step, should_stop)
    result: Generator = generator.with_prior(training.result)
    return result


def _save(run: Run, result: Generator, device: torch.device) -> Generator:
    folder, facts = run.out / RESULT, _facts(run, device)
    if run.ranks.first:
        with run.writing(RESULT):
            result.save_pretrained(folder)
            write_json(folder / TRAINING_CONFIG, facts)
    run.ranks.barrier()
    return Generator.from_pretrained(folder, device=device)


def _facts(run: Run, device: torch.device) -> dict[str, Any]:
    """What describes the run, JSON-ready."""
    config, matching = run.config, run.config.matching
    first = config.reconstruction if config.first == "reconstruction" else config.adversarial
    aged = config.pool.aging_steps * matching.batch_size * matching.steps
    return {
        "config": config.to_record(),
        "data": read_json(run.out / RUN)["data"],
        "minutes": round(run.elapsed / 60, 1),
        "images_shown": first.steps * first.batch_size + matching.steps * matching.batch_size,
        "images_shown_to_pool": 50 * sum(config.pool.ages) + aged if matching.steps else 0,
        "selection": run.scores,
        "chosen_step": run.best["step"] if run.best else matching.steps,
        **_prior_facts(run),
        "device": str(device),
        "torch": torch.__version__,
    }


def _prior_facts(run: Run) -> dict[str, Any]:
    if "prior" not in run.states:
        return {}
    state = run.states["prior"]
    return {
        "codes_shown_to_prior": state.step * run.config.prior.batch_size,
        "held_out_bits": round(state.parts["best"].bits, 2),
    }


def draw_pictures(run: Run, result: Generator) -> None:
    """Samples of the result, and the run's curves where matplotlib is installed."""
    if not run.ranks.first:
        return
    decorate(run.out / SAMPLES, partial(save_grid, result))
    if importlib.util.find_spec("matplotlib") is not None:
        decorate(run.out / CURVES, partial(save_curves, run.out / METRICS))
