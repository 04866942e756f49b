"""Lightning, Fabric and Accelerate, on one process and on two: what they are handed out is shared out once."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms.functional import pil_to_tensor

from dim_data import DistilledDataset, DistilledLoader
from ranks import run_ranks

pytest.importorskip("lightning")
pytest.importorskip("accelerate")

IPC = 8
Keys = list[tuple[int, bytes]]


def build(folder: Path, **options: Any) -> DistilledLoader:
    return DistilledLoader(folder, 4, **{"ipc": IPC, "device": "cpu", "dtype": torch.uint8, **options})


def build_stock(folder: Path) -> DataLoader[Any]:
    return DataLoader(DistilledDataset(folder, ipc=IPC, transform=pil_to_tensor), 4, shuffle=True)


def keys(images: Tensor, labels: Tensor) -> Keys:
    return [(int(label), image.numpy().tobytes()) for image, label in zip(images, labels, strict=True)]


def use_lightning(folder: Path, world_size: int) -> dict[str, Any]:
    import lightning

    class Probe(lightning.LightningModule):
        def __init__(self, save_at: tuple[int, int] | None = None) -> None:
            super().__init__()
            self.net, self.seen, self.save_at = nn.Linear(28 * 28, 3), [[], [], []], save_at

        def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
            images, labels = batch
            self.seen[self.current_epoch].append(keys(images, labels))
            return nn.functional.cross_entropy(self.net(images.float().flatten(1)), labels)

        def on_train_batch_end(self, outputs: Any, batch: Any, number: int) -> None:
            if (self.current_epoch, number) == self.save_at:
                self.trainer.save_checkpoint(folder / f"lightning{world_size}.ckpt")

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    def fit(feed: Any, save_at: tuple[int, int] | None = None, resume: bool = False) -> list[list[Keys]]:
        probe = Probe(save_at)
        trainer = lightning.Trainer(
            max_epochs=3,
            accelerator="cpu",
            devices=world_size,
            strategy="ddp" if world_size > 1 else "auto",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(probe, feed, ckpt_path=str(folder / f"lightning{world_size}.ckpt") if resume else None)
        return probe.seen

    return {
        "loader": fit(build(folder), save_at=(1, 0)),
        "resumed": fit(build(folder), resume=True),
        "dataset": fit(build_stock(folder)),
    }


def use_fabric(folder: Path, world_size: int) -> dict[str, Any]:
    from lightning.fabric import Fabric

    loader, stock = build(folder), build_stock(folder)
    fabric = Fabric(accelerator="cpu", devices=world_size, strategy="ddp" if world_size > 1 else "auto")
    fabric.launch()
    feed, stock = fabric.setup_dataloaders(loader, stock)
    found: dict[str, Any] = {"length": (len(feed), len(feed.dataset), feed.batch_size)}
    found["loader"] = [[keys(*batch) for batch in feed] for _ in range(3)]
    batches = iter(feed)
    next(batches)
    fabric.save(folder / f"fabric{world_size}.ckpt", {"loader": feed})
    rest = [keys(*batch) for batch in batches]
    again = fabric.setup_dataloaders(build(folder))
    fabric.load(folder / f"fabric{world_size}.ckpt", {"loader": again})
    found["resumes"] = [keys(*batch) for batch in again] == rest
    found["next"] = [keys(*batch) for batch in again] == [keys(*batch) for batch in feed]
    found["dataset"] = [[keys(*batch) for batch in stock] for _ in range(3)]
    return found


def use_accelerate(folder: Path, world_size: int) -> dict[str, Any]:
    from accelerate import Accelerator

    loader, stock = build(folder), build_stock(folder)
    accelerator = Accelerator(cpu=True)
    feed, stock = accelerator.prepare(loader, stock)
    found: dict[str, Any] = {"length": (len(feed), len(feed.dataset), feed.batch_size)}
    found["loader"] = [[keys(*batch) for batch in feed] for _ in range(3)]
    batches = iter(feed)
    next(batches)
    accelerator.save_state(str(folder / f"accelerate{world_size}"))
    rest = [keys(*batch) for batch in batches]
    accelerator.wait_for_everyone()
    accelerator.load_state(str(folder / f"accelerate{world_size}"))
    found["resumes"] = [keys(*batch) for batch in feed] == rest
    found["dataset"] = [[keys(*batch) for batch in stock] for _ in range(3)]
    return found


def use_all(folder: Path, world_size: int) -> dict[str, dict[str, Any]]:
    return {
        "lightning": use_lightning(folder, world_size),
        "fabric": use_fabric(folder, world_size),
        "accelerate": use_accelerate(folder, world_size),
    }


@pytest.fixture(scope="module", params=[1, 2])
def seen(request: pytest.FixtureRequest, tiny_noise: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tiny_noise.save_pretrained(tmp_path_factory.mktemp("noise"), dtype=torch.float32)
    return folder, run_ranks(use_all, request.param, folder, request.param)


def joined(parts: Any) -> Keys:
    """What all ranks saw in an epoch, without its order."""
    return sorted(itertools.chain.from_iterable(itertools.chain.from_iterable(parts)))


def epochs(folder: Path) -> list[Keys]:
    alone = build(folder)
    return [sorted(itertools.chain.from_iterable(keys(*batch) for batch in alone)) for _ in range(3)]


@pytest.mark.parametrize("feed", ["loader", "dataset"])
@pytest.mark.parametrize("framework", ["lightning", "fabric", "accelerate"])
def test_each_picture_of_each_epoch_is_handed_out_once(seen: Any, framework: str, feed: str) -> None:
    folder, ranks = seen
    passes = [rank[framework][feed] for rank in ranks]
    for epoch, wanted in enumerate(epochs(folder)):
        parts = [seen[epoch] for seen in passes]
        assert {len(part) for part in parts} == {6 // len(ranks)}
        assert joined(parts) == wanted


@pytest.mark.parametrize("framework", ["fabric", "accelerate"])
def test_what_they_hand_back_is_of_the_same_size(seen: Any, framework: str) -> None:
    _, ranks = seen
    assert [rank[framework]["length"] for rank in ranks] == [(6 // len(ranks), 24, 4)] * len(ranks)


def test_lightning_resumes_in_the_middle_of_a_pass(seen: Any) -> None:
    _, ranks = seen
    for rank in ranks:
        whole, resumed = rank["lightning"]["loader"], rank["lightning"]["resumed"]
        assert resumed == [[], whole[1][1:], whole[2]]


@pytest.mark.parametrize("framework", ["fabric", "accelerate"])
def test_their_checkpoints_hold_where_the_loader_stands(seen: Any, framework: str) -> None:
    _, ranks = seen
    assert all(rank[framework]["resumes"] for rank in ranks)
    assert all(rank[framework].get("next", True) for rank in ranks)
