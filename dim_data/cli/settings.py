"""What ``--set`` says: choices of a run, or options of a decoder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dim_data.distillation import DistillConfig

__all__ = ["parse_options", "parse_settings", "settings_named"]


def parse_settings(pairs: Sequence[str], config: DistillConfig) -> DistillConfig:
    """``config`` with ``["matching.steps=10", "pool.ages=1,2", "options.width=96"]`` changed in it."""
    values = config.to_dict()
    stages = {name: value for name, value in values.items() if isinstance(value, dict) and name != "options"}
    known = [name for name in values if name not in stages and name != "options"]
    known += [f"{stage}.{name}" for stage, choices in stages.items() for name in choices]
    for pair in pairs:
        name, found, text = pair.partition("=")
        stage, _, field = name.rpartition(".")
        if not found or not (name in known or (stage == "options" and field)):
            raise ValueError(f"--set wants NAME=VALUE, got {pair!r}; names: {', '.join(sorted(known))}, options.OPTION")
        holder = values[stage] if stage else values
        several = isinstance(holder.get(field), list)
        holder[field] = [_value(part) for part in text.split(",") if part] if several else _value(text)
    return DistillConfig.from_dict(values)


def parse_options(pairs: Sequence[str]) -> dict[str, int]:
    """``["options.width=80"]`` as a decoder's options."""
    found = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        stage, _, option = name.rpartition(".")
        if stage != "options" or not option or not text.isdecimal():
            raise ValueError(f"--set wants options.NAME=N here, such as options.width=80, got {pair!r}")
        found[option] = int(text)
    return found


def settings_named(pairs: Sequence[str]) -> set[str]:
    """The names in what :func:`parse_settings` takes."""
    return {pair.partition("=")[0] for pair in pairs}


def _value(text: str) -> Any:
    python = {"True": True, "False": False, "None": None}
    if text in python:
        return python[text]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
