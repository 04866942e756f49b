"""Which GPU is whose, and who speaks."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from dim_data.networks.joining import is_first, joined, own_device
from dim_data.networks.ranks import ALONE, Ranks

THIRD = Ranks(2, 4)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


@pytest.mark.usefixtures("two_gpus")
def test_each_rank_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert own_device(None, THIRD) == own_device("cuda", THIRD) == torch.device("cuda", 1)
    assert own_device("cuda:0", THIRD) == torch.device("cuda", 0), "as was asked"
    assert own_device("cpu", THIRD) == torch.device("cpu")
    assert own_device(None, ALONE) == torch.device("cuda"), "one process: as ever"


@pytest.mark.usefixtures("two_gpus")
def test_a_rank_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(RuntimeError, match=r"rank 2 has no GPU: there are 2 here, for more processes\. Start 2 with"):
        own_device(None, THIRD)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RuntimeError, match=r"rank 2 has no GPU: there is 1 here.*or pass device='cpu'"):
        own_device(None, THIRD)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")  # each process is shown its own
    assert own_device(None, THIRD) == torch.device("cuda", 0)


def test_the_first_process_of_a_job_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert is_first()
    for name, value in {"RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert not is_first()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert is_first()
    with joined() as ranks:  # one process alone makes no group
        assert ranks == ALONE
        assert not dist.is_initialized()
