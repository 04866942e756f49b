from __future__ import annotations

import io

from tqdm import tqdm

from dim_data.cli.progress import SeedBar
from dim_data.protocol.training import ClassifierStep


def test_the_bar_of_a_training_that_goes_on_begins_where_it_was() -> None:
    shown = []
    with SeedBar() as bar:
        bar.bar = tqdm(file=io.StringIO())
        for seed, step in ((1, 5), (1, 6), (2, 1), (2, 2), (2, 1)):
            bar.advance(ClassifierStep(step, 10, 0.5, seed))
            shown.append((bar.bar.n, bar.bar.total, bar.bar.desc))
    assert shown == [(n, 10, f"seed {seed}: ") for seed, n in ((1, 5), (1, 6), (2, 1), (2, 2), (2, 1))]
