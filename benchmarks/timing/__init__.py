"""How fast it all is.

* ``using``: loaders and training on them. ``making``: generators, and the steps that make them.
* ``original``: the paper's steps, to be timed beside ours. ``contest``: contestants take turns.
* ``tables``: what ``report.py`` renders from the files in ``results/``.
"""
