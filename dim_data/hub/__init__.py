"""The Hugging Face Hub: pull, push and the model card.

* ``client``: the only importer of huggingface_hub. ``snapshots``: what of a pulled repository may be trusted.
* ``publishing``: :func:`publish`, a generator's folder as one commit. Begin here. ``targets``: where it goes.
* ``card``, ``accuracies``: what the card says, and what it states was measured.

Knows files, not generators: imports ``format`` and the floors below it.
"""

from __future__ import annotations

from dim_data.hub.accuracies import Accuracy, Measurement, agree, in_percent
from dim_data.hub.client import is_repo_id, pull
from dim_data.hub.publishing import Publication, forget_description, publish, stated_accuracies

__all__ = [
    "Accuracy",
    "Measurement",
    "Publication",
    "agree",
    "forget_description",
    "in_percent",
    "is_repo_id",
    "publish",
    "pull",
    "stated_accuracies",
]
