"""Parts of a class."""

from __future__ import annotations

import pytest
import torch

from conftest import SMALL_CLASSIFIERS, make_data
from dim_data.distillation import clusters
from dim_data.distillation.clusters import cluster_classes, describe_images


def test_members_that_lie_together_are_a_cluster() -> None:
    rng = torch.Generator().manual_seed(0)
    labels, blob = torch.arange(300) % 2, torch.arange(300) // 2 % 3
    centres = 10 * torch.eye(3)
    features = centres[blob] + torch.randn(300, 3, generator=rng)
    # Seeds differ in the first centres, and one of a few finds all three.
    found = next(
        clusters
        for seed in range(20)
        for clusters in [cluster_classes(features, labels, 2, 3, seed)]
        if len(clusters.unique()) == 6 and torch.bincount(clusters).min() == 50
    )
    assert torch.equal(found // 3, labels)
    for label in range(2):
        for one in range(3):
            assert len(found[(labels == label) & (blob == one)].unique()) == 1


def test_clusters_are_the_same_for_the_same_seed_and_few_members_leave_some_empty() -> None:
    features, labels = torch.randn(9, 4), torch.arange(9) % 3
    found = cluster_classes(features, labels, 3, 32, 0)
    assert torch.equal(found, cluster_classes(features, labels, 3, 32, 0))
    assert torch.equal(found // 32, labels)
    assert len(found.unique()) == 9
    assert torch.equal(cluster_classes(features, labels, 3, 1, 0), labels)
    assert torch.equal(cluster_classes(torch.zeros(9, 4), labels, 3, 2, 0) // 2, labels)


def test_an_image_is_described_by_the_classifier_whatever_its_batch() -> None:
    data = make_data(3, 32)
    net = SMALL_CLASSIFIERS["convnet3"](data.spec)
    found = describe_images(net, data.images.split(7), len(data), data.spec, torch.device("cpu"))
    assert found.shape == (60, 8 * 4)
    torch.testing.assert_close(found, describe_images(net, [data.images], len(data), data.spec, torch.device("cpu")))
    assert not net.training


def test_many_features_are_kept_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_data()
    net, device = SMALL_CLASSIFIERS["convnet3"](data.spec), torch.device("cpu")
    wanted = describe_images(net, data.images.split(7), len(data), data.spec, device)
    monkeypatch.setattr(clusters, "HALVED", 0)
    found = describe_images(net, data.images.split(7), len(data), data.spec, device)
    assert found.dtype == torch.float16
    assert torch.equal(found, wanted.half())
    assert len(cluster_classes(found, data.labels, 3, 4, 0).unique()) == 12
