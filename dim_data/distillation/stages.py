"""``distill()``: the stages in order."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dim_data.distillation.adversarial import adversarial_parts, train_adversarial
from dim_data.distillation.candidates import (
    averages,
    draw_pictures,
    kept_images,
    make_candidate,
    note_candidate,
    score_candidates,
    ship_best,
)
from dim_data.distillation.fitting import fit_to_images
from dim_data.distillation.folders import check_outside, claimed, open_run, write_run
from dim_data.distillation.loops import StageStep
from dim_data.distillation.matching import match_images, match_labels
from dim_data.distillation.pool import start_pool, warm_pool
from dim_data.distillation.presets import PRESETS, DistillConfig
from dim_data.distillation.reconstruction import reconstruct, reconstruction_parts
from dim_data.distillation.runs import Run, call_to_resume
from dim_data.distillation.sharing import check_batches, check_same
from dim_data.format import BEFORE, RESULT, RUN, GeneratorConfig, check_writable
from dim_data.generator import Generator
from dim_data.images import (
    CUT_FROM_PHOTOS,
    ImageSpec,
    LabelledImages,
    load_real,
    permitted,
    torch_defaults,
)
from dim_data.networks import GlobalRng, Ranks, own_device, reached_sizes

__all__ = ["distill"]


def distill(
    data: Any,
    spec: ImageSpec | None = None,
    config: DistillConfig | str | None = None,
    *,
    out: str | Path,
    root: str | Path | None = None,
    size: int | None = None,
    columns: tuple[Any, Any] | None = None,
    resume: bool = True,
    overwrite: bool = False,
    max_minutes: float | None = None,
    checkpoint_seconds: float = 300.0,
    device: str | torch.device | None = None,
    on_step: Callable[[StageStep], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Generator:
    """Distil labelled images into a generator.

    The output folder receives ``generator/`` (the result), ``before_matching/`` (what stage one made), ``run.json``,
    ``metrics.jsonl``, ``checkpoint.pt``, ``samples.png`` and, with matplotlib, ``curves.png``. Killed at any moment,
    the same call goes on from the last checkpoint and, on a CPU, ends with the weights of an unbroken run; once the
    run is finished, it returns the result. Which run it is depends on the images and not on where they lie. A picture
    that cannot be drawn is a warning.

    In a process group all ranks call it, and share the work; the losses are those of one process. Any number of ranks
    goes on with a run. ``out`` lies where all of them see it, and the first one writes there; ``on_step`` and
    ``should_stop`` are called on each.

    Args:
        data: Real images in any form that :func:`~dim_data.images.load_real` takes.
        spec: What the images are; taken from the data when left out.
        config: A name in :data:`PRESETS`, or ``None`` for ``"default"``: fitted to the images, see
            :func:`fit_to_images`; or a :class:`DistillConfig`, which is taken as it is.
        out: The output folder.
        root: Where a known dataset's files are, if ``data`` is its name.
        size: Resize and crop every image to so many pixels; left out, they must be squares of one size.
        columns: The keys of the image and the label in the items of ``data``, where they are not found by type.
        resume: Go on with the run in ``out``, if there is one; ``False`` refuses a folder with a run, be it of this
            very call: leave it out to go on.
        overwrite: Begin anew in a folder that holds a run, which is deleted, be it of this very call: leave it out to
            go on.
        max_minutes: Stop after this long in this call, resumably.
        checkpoint_seconds: Time between checkpoints.
        device: Default: CUDA where there is one, in a process group that of the rank.
        on_step: Called after each step of each stage, for progress bars.
        should_stop: Asked after each step; ``True`` saves and stops.

    Returns:
        The generator at the checkpoint that taught most on held-out training images, in eval mode, also saved in
        ``out/generator``. The presets let two compete; above 32 pixels ``default`` and ``noise`` take the last.

    Raises:
        StoppedError: ``max_minutes`` ran out or ``should_stop`` said so; the run is saved.
        DivergenceError: A loss or weight became NaN or infinite.
        RankError: Another rank failed, or is gone.
        FileExistsError: ``out`` holds something else, or another process is at work in it.
        OSError: ``out`` cannot be written to, or no longer: the last checkpoint is intact.
        FileNotFoundError: There is no such data, or ``root`` is needed and left out.
        RuntimeError: ``device`` is a GPU, and there is none.
        TypeError: ``data`` or ``config`` is none of what they may be.
        ValueError: The data or the configuration cannot be used, or is not the same on all ranks, or ``out`` lies in
            the folder of images.
    """
    out, ranks = Path(out).expanduser(), Ranks.present()
    with ranks.together():
        preset = "default" if config is None else config
        if not isinstance(preset, str | DistillConfig):
            raise TypeError(
                f"config must be the name of a preset, {' or '.join(map(repr, sorted(PRESETS)))}, or a DistillConfig, "
                f"which DistillConfig.from_dict() makes of a mapping; got {preset!r}"
            )
        if isinstance(preset, str) and preset not in PRESETS:
            raise ValueError(f"unknown preset {preset!r}: choose from {sorted(PRESETS)}")
        config = PRESETS[preset] if isinstance(preset, str) else preset
        device = own_device(device, ranks)
        check_outside(out, data)
        if ranks.first and not (out / RUN).exists():
            check_writable(out, folder=True)  # before the data is read
        full = load_real(data, spec, root=root, size=size, columns=columns, sizes=reached_sizes(config.architecture))
        if isinstance(preset, str):
            config = fit_to_images(config, full.spec, len(full))
        check_batches(config, ranks)
        _check_classes(full, config)
        # The paired stages always train a decoder of codes; noise takes their place at the end.
        source, codes = ("codes", full.spec.num_classes) if config.first == "reconstruction" else ("noise", 0)
        with torch_defaults(), GlobalRng(config.seed):
            generator = Generator(
                GeneratorConfig(full.spec, config.architecture, source, options=config.options, codes=codes)
            ).to(device)
        identity = {
            "config": config.to_record(),
            "data": full.fingerprint(),
            # Its name is often that of the place where the images lie: elsewhere they are the same.
            "spec": {name: value for name, value in full.spec.to_dict().items() if name != "name"},
            "device": device.type,
        }
        if full.spec.name in CUT_FROM_PHOTOS:  # which decides what is held out
            identity["photos"] = full.spec.name
        ranks.barrier()  # one may have had to decode the images
        check_same(ranks, identity, resume=resume, overwrite=overwrite)
        with claimed(out) if ranks.first else nullcontext():
            finished = ranks.all_gather_object(open_run(out, identity, resume, overwrite) if ranks.first else None)[0]
            if not (out / RUN).is_file():
                raise FileNotFoundError(f"rank {ranks.rank} does not see {out}: let it lie where all ranks see it")
            if finished:
                return Generator.from_pretrained(out / RESULT, device=device)
            deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
            run = Run(out, config, checkpoint_seconds, deadline, ranks, call_to_resume(resume, overwrite))
            run.load()
            train, held_out = full.split(config.holdout, config.seed) if config.holdout else (full, full)
            train = train.to(device)
            _stages(run, generator, train, held_out, device, on_step, should_stop)
            result = ship_best(run, full, (train, held_out), device, on_step, should_stop)
            if ranks.first:
                with run.writing(RUN):
                    write_run(out, identity, finished=True)
            run.forget()
            draw_pictures(run, result)
            return result


def _check_classes(data: LabelledImages, config: DistillConfig) -> None:
    """Refuse data that would only fail hours later, when codes are stored or a checkpoint is scored."""
    wanted = 2 if config.holdout else 1
    counts = torch.bincount(data.labels.cpu(), minlength=data.spec.num_classes).tolist()
    short = [f"{name!r} ({n})" for name, n in zip(data.spec.classes, counts, strict=True) if n < wanted]
    if short:
        numbered = data.spec.classes == tuple(map(str, range(data.spec.num_classes))) and 0 in counts
        hint = ". Labels count from 0: give them as strings where they are names" if numbered else ""
        raise ValueError(
            f"every class needs at least {wanted} image{'s, one to hold out' if wanted > 1 else ''}; "
            f"too few of {', '.join(short[:5])}{hint}"
        )
    if 0 < config.max_codes < data.spec.num_classes:
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
    config, spec, ranks, paired = run.config, train.spec, run.ranks, run.config.first == "reconstruction"
    sharing: dict[str, Any] = {"device": device, "ranks": ranks}
    common: dict[str, Any] = {"augmentation": permitted(config.augmentation, spec), **sharing}
    pool_config = replace(config.pool, augmentation=permitted(config.pool.augmentation, spec))
    if config.matching.steps:  # or there is no pool
        pool = run.add("pool", start_pool(pool_config, spec, config.seed + 1, device))
        if "pool" not in run.done:
            run.drive(warm_pool(pool, train, pool_config, **sharing), on_step, should_stop)
            run.done.append("pool")
    state = run.add(
        "main",
        reconstruction_parts(generator, config.ema, config.seed + 2, device)
        if paired
        else adversarial_parts(generator, config.adversarial, config.ema, config.seed + 2, device),
    )
    if "first" not in run.done:
        first = (
            reconstruct(state, train, config.reconstruction, **common)
            if paired
            else train_adversarial(state, train, config.adversarial, **common)
        )
        run.drive(first, on_step, should_stop)
        run.save()  # before there is anything that only a run with a checkpoint has
        before = make_candidate(*averages(state), kept_images(train, config), config, device, ranks=ranks)
        if ranks.first:
            with run.writing(BEFORE):
                before.save_pretrained(run.out / BEFORE)
        run.done.append("first")
        state.step = 0
        run.save()
    if not config.matching.steps:
        return
    matching = (
        match_images(state, pool, train, config.matching, **common)
        if paired
        else match_labels(state, pool, train, config.matching, pool_config, **sharing)
    )
    chosen = range(1, config.selection.checkpoints + 1)
    looks = {config.matching.steps * i // config.selection.checkpoints for i in chosen}

    def look(step: int) -> None:
        if step in looks:
            note_candidate(run, state, step)
            if len(run.waiting) == ranks.size or step == config.matching.steps:
                score_candidates(run, state, train, held_out, device)

    run.drive(matching, on_step, should_stop, look)
