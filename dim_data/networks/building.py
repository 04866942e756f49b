"""Classifiers of one's own: how they are built, and what they must give, tried before any training."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dim_data.images import ImageSpec, digest, torch_defaults
from dim_data.networks.classifiers import CLASSIFIERS
from dim_data.networks.compute import autocast
from dim_data.networks.rng import GlobalRng

__all__ = ["build_classifier", "check_classifier", "classifier_builder", "identify_classifier", "logits_of"]

Builder = Callable[[ImageSpec], nn.Module]


def classifier_builder(classifier: str | Builder) -> Builder:
    """What builds a classifier: a name in :data:`CLASSIFIERS`, or a callable that takes an :class:`ImageSpec`.

    Raises:
        TypeError: It is a module already, cannot be called, or takes something else than a spec.
        ValueError: The name is unknown.
    """
    if isinstance(classifier, str):
        if classifier not in CLASSIFIERS:
            raise ValueError(f"unknown classifier {classifier!r}: choose from {sorted(CLASSIFIERS)}")
        return CLASSIFIERS[classifier]
    if isinstance(classifier, nn.Module):
        kind = type(classifier).__name__
        raise TypeError(
            f"the classifier is a {kind} already, and each seed trains a fresh one: pass a function that builds it, "
            f"such as lambda spec: {kind}(...)"
        )
    if not callable(classifier):
        raise TypeError(
            f"a classifier is a name, one of {sorted(CLASSIFIERS)}, or a function from an ImageSpec to a module, "
            f"got {classifier!r}"
        )
    reason = _why_not(classifier)
    if reason:
        name = getattr(classifier.func if isinstance(classifier, partial) else classifier, "__name__", "build")
        raise TypeError(
            f"a classifier is built by a function of an ImageSpec, and {name} is none: {reason}. Pass one, such as "
            f"lambda spec: {name}(num_classes=spec.num_classes)"
        )
    return classifier


def _why_not(builder: Callable[..., Any]) -> str:
    """Why ``builder`` should not be called with a spec, if so: torchvision's would take it for the name of weights."""
    try:
        signature = inspect.signature(builder)
    except ValueError:  # of a callable written in C nothing is known
        return ""
    try:
        first = next(iter(signature.bind(object()).arguments))
    except TypeError as error:
        return str(error)
    default = signature.parameters[first].default
    if default is inspect.Parameter.empty or default is None:
        return ""
    return f"the first thing it takes is {first}={default!r}"


def build_classifier(classifier: str | Builder, spec: ImageSpec) -> nn.Module:
    """A fresh classifier for ``spec``; see :func:`classifier_builder`.

    Raises:
        ValueError: The name is unknown.
        TypeError: The callable takes no spec, or did not return a module.
    """
    model = classifier_builder(classifier)(spec)
    if not isinstance(model, nn.Module):
        raise TypeError(f"a classifier must be an nn.Module, the builder returned {type(model).__name__}")
    return model


@torch_defaults()
def identify_classifier(
    classifier: Builder, spec: ImageSpec, seed: int, device: torch.device | None = None
) -> dict[str, str]:
    """What tells a builder of classifiers from another, whatever either is called: what it builds.

    Args:
        classifier: The builder, which is called twice.
        spec: What it builds for.
        seed: Of the fresh weights; torch's random state stays where it is.
        device: A GPU that it may build on.

    Returns:
        The class of what it builds; a digest of its layers, of how they are set and of which weights are trained; and
        one of the fresh weights, where they are the same each time.
    """
    weights: set[str] = set()
    for _ in range(2):
        with GlobalRng(seed, device):
            model = build_classifier(classifier, spec)
        state = model.state_dict().values()
        weights.add(digest(t for t in state if isinstance(t, Tensor) and not is_lazy(t)))
    layers = [re.sub(r" at 0x[0-9a-fA-F]+", "", repr(model))]
    for name, module in model.named_modules():
        settings = {key: value for key, value in vars(module).items() if isinstance(value, int | float | str)}
        layers.append(f"{name}: {sorted(settings.items())}")
    layers += [f"{name} {tuple(p.shape)} {p.requires_grad}" for name, p in model.named_parameters() if not is_lazy(p)]
    text = hashlib.sha256("\n".join(layers).encode()).hexdigest()[:16]
    # Whoever draws weights from other random numbers than torch's has others each time, of the same work.
    return {
        "kind": type(model).__name__,
        "layers": text,
        "weights": weights.pop() if len(weights) == 1 else "drawn anew each time",
    }


def logits_of(output: Any, count: int, classes: int, who: str = "classifier") -> Tensor:
    """The logits in what a classifier gives: the tensor itself, or its ``logits``, as transformers' models have them.

    Args:
        output: Of a batch of ``count`` images.
        count: Images.
        classes: Classes.
        who: What to call the classifier in an error.

    Returns:
        float (count, classes).

    Raises:
        TypeError: There are none in it.
        ValueError: They have another shape.
    """
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"a {who} must give logits, a tensor of shape {(count, classes)}, got {type(output).__name__}: wrap it in "
            f"a module that gives the logits alone"
        )
    if logits.shape != (count, classes):
        raise ValueError(
            f"a {who} must give logits of shape {(count, classes)}, got {tuple(logits.shape)}: build it for {classes} "
            f"classes, such as lambda spec: resnet18(num_classes=spec.num_classes)"
        )
    return logits


@torch.no_grad()
def check_classifier(model: nn.Module, spec: ImageSpec) -> None:
    """Try a classifier on two images of noise, in eval mode, before hours are spent on it.

    Raises:
        TypeError: It gives something else than logits.
        ValueError: It has no parameter to train, fails on such images, or gives logits of another shape or not finite.
    """
    name = type(model).__name__
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise ValueError(f"the classifier {name} has no parameter to train: let some of them require gradients")
    device, shape = trained[0].device, (2, spec.channels, spec.size, spec.size)
    images = spec.normalize(torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device))
    was_training = model.training
    model.eval()
    try:
        with autocast(device):
            output = model(images.contiguous(memory_format=torch.channels_last))
    except Exception as error:
        raise ValueError(f"the classifier {name} fails on float32 images of shape {shape}: {error}") from error
    finally:
        model.train(was_training)
    if not bool(logits_of(output, 2, spec.num_classes).isfinite().all()):
        raise ValueError(f"the classifier {name} gives NaN or infinite logits before any training")
