"""How fast it all is.

* ``using``: loaders and training on them, ``feeds``, beside those of others, ``peers``. ``making``: generators, and the
  steps that make them.
* ``original``: the paper's steps, to be timed beside ours. ``contest``: contestants take turns.
* ``tables``, ``scale``, ``processes``: what ``report.py`` renders from the files in ``results/``. ``imagenet``: what
  that would take, on paper.
"""
