"""What processes share: counters that workers move together and jobs do not, with no need of /dev/shm."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import queue
import shutil
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader

from dim_data.generator import painting
from dim_data.generator.model import Generator
from dim_data.loading import blocks
from dim_data.loading.dataset import DistilledDataset
from dim_data.loading.memory import shared_zeros
from dim_data.networks import handing, share_memory

IPC = 4
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")


def to_bytes(image: Any) -> bytes:
    return image.tobytes()


def build(source: Generator, **options: Any) -> DistilledDataset:
    return DistilledDataset(source, ipc=IPC, transform=to_bytes, **options)


def passes(dataset: DistilledDataset, count: int, **options: Any) -> list[list[bytes]]:
    """The pictures of some passes, each in order of the indices."""
    loader = DataLoader(dataset, 5, collate_fn=list, **options)
    return [[image for batch in loader for image, _ in batch] for _ in range(count)]


def epoch(source: Generator, number: int) -> list[bytes]:
    dataset = build(source)
    dataset.set_epoch(number)
    return [dataset[index][0] for index in range(len(dataset))]


def job(dataset: DistilledDataset, options: dict[str, Any], answers: Any) -> None:
    torch.set_num_threads(1)
    answers.put(passes(dataset, 2, **options))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        pytest.param("fork", {}, marks=forks),
        pytest.param("fork", {"num_workers": 2, "multiprocessing_context": "fork"}, marks=forks),
        pytest.param("fork", {"num_workers": 1, "persistent_workers": True}, marks=forks),
        ("spawn", {}),
    ],
)
def test_jobs_made_with_one_dataset_go_their_own_ways(
    tiny_codes: Generator, method: str, options: dict[str, Any]
) -> None:
    dataset = build(tiny_codes)
    assert passes(dataset, 1) == [epoch(tiny_codes, 0)]
    context: Any = torch.multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    for _ in range(2 if method == "fork" else 1):
        process = context.Process(target=job, args=(dataset, options, answers))
        process.start()
        assert answers.get() == [epoch(tiny_codes, 1), epoch(tiny_codes, 2)]
        process.join()
    assert dataset.epoch == 0
    assert passes(dataset, 1) == [epoch(tiny_codes, 1)]


@forks
def test_a_job_goes_on_from_where_it_was_forked(tiny_codes: Generator) -> None:
    dataset = build(tiny_codes)
    context: Any = multiprocessing.get_context("fork")
    answers, go = context.SimpleQueue(), context.Event()

    def wait() -> None:
        go.wait()
        answers.put(dataset.epoch)

    dataset.set_epoch(3)
    process = context.Process(target=wait)
    process.start()
    dataset.set_epoch(5)
    go.set()
    assert answers.get() == 3
    process.join()


def test_common_memory_holds_zeros_of_any_shape() -> None:
    for shape in ((3, 4), (0,), (7,)):
        found = shared_zeros(*shape, dtype=torch.int16)
        assert (found.shape, found.dtype, bool(found.any())) == (torch.Size(shape), torch.int16, False)
        found.fill_(-1)


# /dev/shm --------------------------------------------------------------------------------------------


def fail(*args: Any) -> None:
    raise RuntimeError("unable to open shared memory object </torch_1> in read-write mode: Read-only file system (30)")


@pytest.mark.parametrize("cache", [False, True])
def test_without_shared_memory_all_but_spawning_works(
    tiny_codes: Generator, cache: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.Tensor, "share_memory_", fail)
    dataset = build(tiny_codes, cache=cache)
    assert passes(dataset, 2) == [epoch(tiny_codes, 0), epoch(tiny_codes, 1)]
    assert dataset.split(0.25)[1][0]
    sentence = (
        r"needs shared memory, and there is none .*Read-only.* use num_workers=0 or multiprocessing_context='fork'"
    )
    with pytest.raises(RuntimeError, match=sentence):
        share_memory(torch.zeros(2))
    with pytest.raises(RuntimeError, match=sentence):
        iter(DataLoader(dataset, 5, num_workers=1, multiprocessing_context="spawn"))


SCRIPT = """
import os, sys
from dim_data import DistilledDataset
from torch.utils.data import DataLoader
assert os.statvfs("/dev/shm").f_bavail == 0 or os.statvfs("/dev/shm").f_flag & os.ST_RDONLY
for cache in (False, True):
    dataset = DistilledDataset(sys.argv[1], ipc=4, cache=cache)
    loader = DataLoader(dataset, 6, collate_fn=list)
    first, second = ([image.tobytes() for batch in loader for image, _ in batch] for _ in range(2))
    assert len({*first, *second}) == 24
    print(dataset.epoch)
"""


@pytest.mark.parametrize("kind", ["ro", "full"])
def test_a_read_only_or_full_dev_shm_does_not_matter(codes_folder: Any, kind: str, tmp_path: Any) -> None:
    fill = "head -c 4096 /dev/zero > /dev/shm/full" if kind == "full" else "mount -o remount,ro /dev/shm"
    command = f'mount -t tmpfs -o size=4096 none /dev/shm && {fill} && exec "$0" -c "$1" "$2"'
    unshare = ["unshare", "--mount", "sh", "-c", command, sys.executable, SCRIPT, str(codes_folder)]
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode
    ):
        pytest.skip("mounts cannot be unshared here")
    run = subprocess.run(unshare, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["1", "1"]


# Spawned processes -----------------------------------------------------------------------------------


def ask(generator: Generator, answers: Any) -> None:
    labels = torch.arange(6) % 3
    state = [(name, tensor.stride(), str(tensor.dtype)) for name, tensor in generator.state_dict().items()]
    kept = {name: tensor.tolist() for name, tensor in generator.stored.items()}
    flags = [type(p).__name__ + str(p.requires_grad) for p in generator.parameters()]
    answers.put((generator.synthesize(labels, labels).tolist(), state, kept, flags, generator.training))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_generator_is_the_same_in_a_process_that_is_spawned(
    tiny_prior: Generator, method: str, tmp_path: Any
) -> None:
    generator = Generator.from_pretrained(tiny_prior.save_pretrained(tmp_path, dtype=torch.int8))
    generator.source.prior.bias.requires_grad_()
    generator.note = [torch.zeros(3, 4).T, generator.source.prior.bias]
    context = multiprocessing.get_context(method)
    answers: Any = context.Queue()
    found = []
    for _ in range(2):
        process = context.Process(target=ask, args=(generator, answers))
        process.start()
        found.append(answers.get(timeout=60))
        process.join()
    mine = queue.Queue()
    ask(generator, mine)
    assert found == 2 * [mine.get()]


def test_workers_of_forkserver_take_few_file_descriptors(tiny_prior: Generator) -> None:
    """It hands on no more than 255, and a noise generator has more tensors than that."""
    sets = ConcatDataset([build(copy.deepcopy(tiny_prior)) for _ in range(12)])
    assert sum(len(part.generator.state_dict()) for part in sets.datasets) > 255
    loader = DataLoader(sets, 50, num_workers=2, multiprocessing_context="forkserver", collate_fn=list)
    assert sum(len(batch) for batch in loader) == len(sets)


def test_weights_that_changed_are_handed_on_as_they_are(tiny_codes: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(painting, "is_spawning", lambda: True)
    generator = copy.deepcopy(tiny_codes)
    first = pickle.loads(pickle.dumps(generator))
    piece = handing._HANDED[generator].piece
    pickle.dumps(generator)
    assert handing._HANDED[generator].piece is piece, "one for all workers"
    with torch.no_grad():
        next(generator.decoder.parameters()).add_(1)
    other = pickle.loads(pickle.dumps(generator))
    for (name, now), then in zip(generator.state_dict().items(), first.state_dict().values(), strict=True):
        assert torch.equal(other.state_dict()[name], now)
        assert torch.equal(then, tiny_codes.state_dict()[name])


@pytest.mark.parametrize("room", [1 << 40, 100])
def test_spawned_workers_share_what_was_painted_for_items(
    tiny_noise: Generator, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a chunk that one of them paints the others take theirs."""
    monkeypatch.setattr(blocks, "free_shared_memory", lambda: room)
    dataset = build(tiny_noise)
    wrapped = ConcatDataset([dataset])
    loader = DataLoader(wrapped, 3, num_workers=2, multiprocessing_context="spawn", collate_fn=list)
    found = [image for batch in loader for image, _ in batch]
    assert found == epoch(tiny_noise, 0)
    assert bool(dataset._blocks._keys.any()) == (room > 100)
