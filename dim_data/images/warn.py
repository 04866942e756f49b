"""Warnings that point at the line of the caller's script which led to them, however deep they come from."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from pathlib import Path

import torch

__all__ = ["warn_caller"]

_BETWEEN = (str(Path(__file__).parent.parent) + os.sep, str(Path(torch.__file__).parent) + os.sep, contextlib.__file__)
"""Files that are passed over: this library's, and those of torch and Python that it is called by."""


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the nearest line outside of this library and torch, or at the outermost where there is none."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_BETWEEN):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
