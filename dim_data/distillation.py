"""``distill()``: the stages in order, and the choice of the best generator."""

from __future__ import annotations

import importlib.util
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dim_data import hub
from dim_data.adversarial import adversarial_parts, train_adversarial
from dim_data.augment import permitted
from dim_data.compute import resolve_device
from dim_data.config import GeneratorConfig
from dim_data.evaluation import evaluate
from dim_data.figures import save_curves, save_grid
from dim_data.generator import Generator
from dim_data.labelling import opinions
from dim_data.loops import LoopState, StageStep
from dim_data.matching import match_images, match_labels
from dim_data.pool import elders, start_pool, warm_pool
from dim_data.presets import PRESETS, DistillConfig
from dim_data.real import LabelledImages, load_real
from dim_data.reconstruction import encode_all, reconstruct, reconstruction_parts
from dim_data.runs import BEFORE, CURVES, METRICS, RESULT, Run, claimed, open_run
from dim_data.specs import ImageSpec

__all__ = ["distill"]


def distill(
    data: Any,
    spec: ImageSpec | None = None,
    config: DistillConfig | str | None = None,
    *,
    out: str | Path,
    root: str | Path | None = None,
    resume: bool = True,
    overwrite: bool = False,
    max_minutes: float | None = None,
    checkpoint_seconds: float = 300.0,
    device: str | torch.device | None = None,
    on_step: Callable[[StageStep], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Generator:
    """Distil labelled images into a generator.

    The output folder receives ``generator/`` (the result), ``before_matching/`` (what stage one made),
    ``metrics.jsonl``, ``samples.png``, ``curves.png`` (with matplotlib) and ``checkpoint.pt``. Killed at any
    moment, the same call goes on from the last checkpoint and, on a CPU, ends with the weights of an unbroken
    run.

    Args:
        data: Real images in any form that :func:`~dim_data.real.load_real` takes.
        spec: What the images are; taken from the data when left out.
        config: A :class:`DistillConfig`, a name in :data:`PRESETS`, or ``None`` for ``"default"``.
        out: The output folder.
        root: Where a known dataset's files are, if ``data`` is its name.
        resume: Go on with the run in ``out``, if there is one; ``False`` refuses a folder with a run.
        overwrite: Begin anew in a folder that holds a run.
        max_minutes: Stop after this long in this call, resumably.
        checkpoint_seconds: Time between checkpoints.
        device: Default: CUDA where there is one.
        on_step: Called after each step of each stage, for progress bars.
        should_stop: Asked after each step; ``True`` saves and stops.

    Returns:
        The generator with the best held-out downstream accuracy, in eval mode, also saved in ``out/generator``.

    Raises:
        StoppedError: ``max_minutes`` ran out or ``should_stop`` said so; the run is saved.
        DivergenceError: A loss or weight became NaN or infinite.
        FileExistsError: ``out`` holds something else, or another process is at work in it.
        OSError: A checkpoint could not be written; the one before it is intact.
        ValueError: The data or the configuration cannot be used.
    """
    if isinstance(config, str):
        if config not in PRESETS:
            raise ValueError(f"unknown preset {config!r}: choose from {sorted(PRESETS)}")
        config = PRESETS[config]
    config = config or PRESETS["default"]
    place = resolve_device(device)
    full = load_real(data, spec, root=root)
    _check_classes(full, config)
    # The paired stages always train a decoder of codes; noise takes their place at the end.
    source, codes = ("codes", full.spec.num_classes) if config.first == "reconstruction" else ("noise", 0)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        generator = Generator(
            GeneratorConfig(full.spec, config.architecture, source, options=config.options, codes=codes)
        ).to(place)
    identity = {
        "config": config.to_dict(),
        "data": full.fingerprint(),
        "spec": full.spec.to_dict(),
        "device": place.type,
    }
    out = Path(out)
    with claimed(out):
        open_run(out, identity, resume, overwrite)
        deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
        run = Run(out, config, checkpoint_seconds, deadline)
        run.load()
        if "finished" in run.done:
            return Generator.from_pretrained(out / RESULT, device=place)
        train, held_out = full.split(config.holdout, config.seed) if config.holdout else (full, full)
        _stages(run, generator, train.to(place), held_out, place, on_step, should_stop)
        result = _finish(run, full, place)
        run.done.append("finished")
        run.states = {}
        run.save()
        return result


def _check_classes(data: LabelledImages, config: DistillConfig) -> None:
    """Refuse data that would only fail hours later, when codes are stored or a checkpoint is scored."""
    wanted = 2 if config.holdout else 1
    counts = torch.bincount(data.labels.cpu(), minlength=data.spec.num_classes).tolist()
    short = [f"{name!r} ({n})" for name, n in zip(data.spec.classes, counts, strict=True) if n < wanted]
    if short:
        raise ValueError(
            f"every class needs at least {wanted} image{'s, one to hold out' if wanted > 1 else ''}; "
            f"too few of {', '.join(short[:5])}"
        )
    if config.source == "codes" and 0 < config.max_codes < data.spec.num_classes:
        raise ValueError(
            f"max_codes must be 0 or at least one a class, {data.spec.num_classes}, got {config.max_codes}"
        )


def _stages(
    run: Run,
    generator: Generator,
    train: LabelledImages,
    held_out: LabelledImages,
    device: torch.device,
    on_step: Callable[[StageStep], object] | None,
    should_stop: Callable[[], bool] | None,
) -> None:
    config = run.config
    paired = config.first == "reconstruction"
    augmentation = permitted(config.augmentation, train.spec)
    pool_augmentation = permitted(config.pool_augmentation, train.spec)
    pool = start_pool(config.pool, len(config.pool_ages), train.spec, config.seed + 1, device)
    if config.matching_steps:
        run.add("pool", pool)
        if "pool" not in run.done:
            warm = warm_pool(pool, train, config.pool_ages, pool_augmentation, device)
            run.drive(warm, on_step, should_stop)
            run.done.append("pool")
    state = run.add(
        "main",
        reconstruction_parts(generator, config.first_lr, config.ema, config.seed + 2, device)
        if paired
        else adversarial_parts(
            generator, config.discriminator_width, config.first_lr, config.ema, config.seed + 2, device
        ),
    )
    if "first" not in run.done:
        common: dict[str, Any] = {
            "batch_size": config.first_batch,
            "augmentation": augmentation,
            "device": device,
        }
        if paired:
            common["lr"] = config.first_lr
        first = (reconstruct if paired else train_adversarial)(state, train, config.first_steps, **common)
        run.drive(first, on_step, should_stop)
        _candidate(state, _kept(train, config), config, device).save_pretrained(run.out / BEFORE)
        run.done.append("first")
        state.step = 0
        run.save()
    if not config.matching_steps:
        return
    if paired:
        matching = match_images(
            state,
            pool,
            train,
            config.matching_steps,
            batch_size=config.matching_batch,
            lr=config.matching_lr,
            logit_weight=config.logit_weight,
            augmentation=augmentation,
            device=device,
        )
    else:
        for optimiser in (state.parts["optimiser_g"], state.parts["optimiser_d"]):
            for group in optimiser.param_groups:
                group["lr"] = config.matching_lr
        matching = match_labels(
            state,
            pool,
            train,
            config.matching_steps,
            batch_size=config.matching_batch,
            match_weight=config.logit_weight,
            lifetime=config.pool_lifetime,
            aging_steps=config.pool_aging,
            augmentation=pool_augmentation,
            device=device,
        )
    looks = {config.matching_steps * (i + 1) // config.selections for i in range(config.selections)}

    def look(step: int) -> None:
        if step in looks:
            _score(run, state, train, held_out, step, device)

    run.drive(matching, on_step, should_stop, look)


def _candidate(state: LoopState, data: LabelledImages, config: DistillConfig, device: torch.device) -> Generator:
    """The averaged generator as it would be shipped: with the codes of ``data``, or with what remains of them."""
    average: Generator = state.parts["average"].module
    if config.first == "adversarial":
        return average
    stored = encode_all(average, state.parts["average_encoder"].module, data, device)
    return stored if config.source == "codes" else stored.forget_codes(config.rank)


def _kept(data: LabelledImages, config: DistillConfig) -> LabelledImages:
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


def _score(
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
    candidate = _candidate(state, some, config, device)
    score = evaluate(candidate, held_out, ipc=ipc, epochs=epochs, seeds=(config.seed,), device=device).mean
    run.scores.append({"step": step, "accuracy": score})
    run.log({"stage": "selection", "step": step, "accuracy": score})
    save_grid(candidate, run.out / hub.SAMPLES)
    if run.best is None or score > run.best["accuracy"]:
        encoder = state.parts.get("average_encoder")
        run.best = {
            "step": step,
            "accuracy": score,
            "generator": {k: v.clone() for k, v in state.parts["average"].module.state_dict().items()},
            "encoder": {k: v.clone() for k, v in encoder.module.state_dict().items()} if encoder else None,
        }


def _finish(run: Run, full: LabelledImages, device: torch.device) -> Generator:
    """Save the best candidate with every training image's code, and what describes the run."""
    state = run.states["main"]
    if run.best is not None:
        state.parts["average"].module.load_state_dict(run.best["generator"])
        if run.best["encoder"] is not None:
            state.parts["average_encoder"].module.load_state_dict(run.best["encoder"])
    kept = _kept(full, run.config)
    if run.config.soft_labels:
        teachers = elders(run.states["pool"], run.config.pool_ages)
        kept = replace(kept, soft=opinions(teachers, kept.images, kept.spec))
    result = _candidate(state, kept, run.config, device)
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
    hub.write_atomically(folder / hub.TRAINING_CONFIG, lambda path: path.write_text(text, encoding="utf-8"))
    result = Generator.from_pretrained(folder, device=device)
    save_grid(result, run.out / hub.SAMPLES)
    if importlib.util.find_spec("matplotlib") is not None:
        save_curves(run.out / METRICS, run.out / CURVES)
    return result
