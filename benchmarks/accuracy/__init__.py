"""How good a classifier becomes that a generator teaches.

* ``measure``: one cell of a table, what ``reproduce.py`` runs. ``missing``: every cell that is not there yet.
* ``baselines``: real images to hold a generator against.
* ``refine``: how the bundled ``cifar10`` was made; ``prior``: those from noise; ``members``: what both begin with.
* ``sets``: the image sets. ``cells``, ``machines``: the result files in ``results/``, and what they say of themselves.
* ``tables``, ``aims``, ``cost``, ``plots``, ``cards``: what ``report.py`` renders from them and from ``tried/``.
"""
