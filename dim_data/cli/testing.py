"""The real images that ``evaluate`` and ``demo`` test on."""

from __future__ import annotations

from dim_data.cli.progress import ReadBar
from dim_data.cli.streams import complain
from dim_data.generator import Generator
from dim_data.images import KNOWN_SPECS, LabelledImages, bundled_test_sample, load_real

__all__ = ["SAMPLE", "test_images"]

SAMPLE = "1,000 of the 10,000 test images, which are bundled"


def test_images(
    generator: Generator, root: str | None, test: str | None, size: int | None
) -> tuple[LabelledImages, str]:
    """The real test images for a generator: ``--test``, else the known set under the root, else the sample.

    Returns:
        The images; and which they are, where they are not all test images of their set.
    """
    name = generator.spec.name
    if test is not None:
        with ReadBar() as bar:
            images = load_real(test, generator.spec, split="test", root=root, size=size, on_read=bar.advance)
        return images, "images other than its test set" if name in KNOWN_SPECS and test != name else ""
    if root is not None and name in KNOWN_SPECS:
        return load_real(name, generator.spec, split="test", root=root, size=size), ""
    if name == "cifar10":
        if size is not None:
            raise ValueError("--size goes with --test: the bundled test images have the size they need")
        complain("testing on the bundled 1000 real images; --data-root DIR tests on all 10000")
        return bundled_test_sample(), SAMPLE
    raise FileNotFoundError(
        f"real test images are needed: --test PATH (an .npz or an image folder)"
        f"{f', or --data-root DIR with the files of {name}' if name in KNOWN_SPECS else ''}"
    )
