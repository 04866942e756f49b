"""Parts of a class."""

from __future__ import annotations

import torch

from conftest import SMALL_CLASSIFIERS, make_data
from dim_data.distillation.clusters import Sight, cluster_classes, describe_images, summaries


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
    found = describe_images(net, data.images.split(7), data.spec, torch.device("cpu"))
    assert found.maps.shape == (60, 8 * 4)
    again = describe_images(net, [data.images], data.spec, torch.device("cpu"))
    torch.testing.assert_close(found.maps, again.maps)
    torch.testing.assert_close(found.logits, again.logits)
    batch = data.spec.normalize(data.images.float() / 255)
    torch.testing.assert_close(found.logits, net(batch).detach(), atol=0.05, rtol=0.05)
    assert not net.training


def test_a_summary_is_of_unit_variance_and_leaves_out_what_says_nothing() -> None:
    rng = torch.Generator().manual_seed(0)
    logits, maps = torch.randn(500, 4, generator=rng) * 7, torch.randn(500, 6, generator=rng)
    maps[:, 3:] = maps[:, :3]  # three directions in all
    found = summaries(Sight(maps, logits), 9)
    assert found.shape == (500, 3 + 3)
    torch.testing.assert_close(found.mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[:, :3].T @ found[:, :3] / 500, torch.eye(3), atol=1e-4, rtol=0)
    # The logits but for what is common to all can be read off again.
    centred = logits - logits.mean(1, keepdim=True)
    ones = torch.cat([found[:, :3], torch.ones(500, 1)], 1)
    fitted = ones @ torch.linalg.lstsq(ones, centred).solution
    torch.testing.assert_close(fitted, centred, atol=1e-3, rtol=0)
    torch.testing.assert_close(summaries(Sight(maps, logits), 3)[:, :1], found[:, :1])
    assert summaries(Sight(maps[:1], logits[:1]), 9).shape == (1, 0)
    assert summaries(Sight(maps, logits), 0).shape == (500, 0)
