"""Which pictures are new in an epoch: arithmetic of index and epoch."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from dim_data.generator.model import Generator
from dim_data.loading.dataset import DistilledDataset
from dim_data.loading.loader import DistilledLoader
from dim_data.loading.serials import serials_at


def epoch_of(epoch: int, ipc: int, refresh: float, classes: int = 3) -> torch.Tensor:
    """Serials of an epoch: int64 (ipc, classes)."""
    indices = torch.arange(ipc * classes)
    epochs = torch.full_like(indices, epoch)
    return serials_at(indices, epochs, ipc=ipc, classes=classes, refresh=refresh).view(ipc, classes)


@pytest.mark.parametrize("ipc", [1, 7, 10**12])
def test_all_are_new_by_default(ipc: int) -> None:
    indices = torch.arange(3)
    found = serials_at(indices, torch.full_like(indices, 5), ipc=ipc, classes=3)
    assert found.tolist() == [5 * ipc] * 3


@pytest.mark.parametrize("refresh", [0.5, 0.3, 0.1, 0.03, 1 / 3])
@pytest.mark.parametrize("ipc", [1, 10, 50])
def test_a_share_is_new_in_each_epoch_and_no_picture_comes_back(ipc: int, refresh: float) -> None:
    epochs = [epoch_of(e, ipc, refresh) for e in range(60)]
    new, gone = [], set()
    for before, now in itertools.pairwise(epochs):
        fresh = (before != now).sum(0)
        assert bool((fresh - refresh * ipc).abs().max() < 1)
        new.append(int(fresh.sum()))
        for label in range(3):
            shown, earlier = ({(label, n) for n in e[:, label].tolist()} for e in (now, before))
            assert len(shown) == ipc
            assert not shown & gone
            gone |= earlier - shown
    assert abs(sum(new) / len(new) - refresh * 3 * ipc) < 0.2
    if refresh * 3 * ipc >= 1:
        assert min(new) >= int(refresh * 3 * ipc) - 2, "they take turns"


def test_no_epoch_has_to_be_gone_through() -> None:
    far = epoch_of(2**31 - 2, 50, 0.1)
    assert far.min() > 2**31 * 4
    assert torch.equal(far, epoch_of(2**31 - 2, 50, 0.1))


@pytest.mark.parametrize("build", [DistilledDataset, DistilledLoader])
@pytest.mark.parametrize(
    ("kind", "options", "error", "sentence"),
    [
        ("noise", {"refresh": 0}, ValueError, r"refresh must lie in \(0, 1\].*, got 0"),
        ("noise", {"refresh": 1.5}, ValueError, r"refresh must lie in \(0, 1\].*, got 1\.5"),
        ("noise", {"refresh": float("nan")}, ValueError, r"refresh must lie in \(0, 1\].*, got nan"),
        ("noise", {"refresh": True}, TypeError, "refresh must be a number, got True"),
        ("noise", {"refresh": "0.1"}, TypeError, "refresh must be a number, got '0.1'"),
        (
            "codes",
            {"refresh": 0.1},
            ValueError,
            r"refresh=0\.1 keeps pictures from noise .* this generator stores codes",
        ),
    ],
)
def test_what_cannot_be_renewed_is_said(
    build: Any,
    kind: str,
    options: dict[str, Any],
    error: type[Exception],
    sentence: str,
    request: pytest.FixtureRequest,
) -> None:
    with pytest.raises(error, match=sentence):
        build(request.getfixturevalue(f"tiny_{kind}"), ipc=2, device="cpu", **options)


def test_a_fixed_set_is_not_renewed(tiny_noise: Generator, tiny_codes: Generator) -> None:
    with pytest.raises(ValueError, match=r"fixed=True keeps all pictures for ever, and refresh=0\.5 some"):
        DistilledDataset(tiny_noise, ipc=2, fixed=True, refresh=0.5)
    assert DistilledDataset(tiny_codes, ipc=2, fixed=True, refresh=1).refresh == 1.0
