"""ImageNet-C: error under 19 corruptions at 5 severities (Hendrycks and Dietterich, ICLR 2019).

Two figures, under names of their own: the plain mean error over all corruptions there are, as the alias-free
paper's authors have it (19, each as it is); and the benchmark's mCE over its 15, each divided by AlexNet's.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from aliasfree_jax.data import FolderSource, Source
from aliasfree_jax.data.archives import DirectoryTree
from aliasfree_jax.data.class_names import ClassNamesError, fit_classes
from aliasfree_jax.errors import DataError
from aliasfree_jax.files import local_path

SEVERITIES = ("1", "2", "3", "4", "5")

# Mean error of AlexNet over the severities, as published with the benchmark.
ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")  # of the benchmark, but not of its mCE
CORRUPTIONS = (*ALEXNET_ERRORS, *EXTRA)


def corruptions_in(directory: str | Path) -> dict[str, Path]:
    """The corruptions that are there with their folders, in usual order.

    A corruption is DIR/<corruption>/<severity>/<class>/*.JPEG, or the same one folder down, by the archives'
    names: DIR/blur/defocus_blur/...

    Raises:
      DataError: there are none, or one is there twice or lacks a severity.
    """
    root = local_path(directory, "--imagenet_c")
    if not root.is_dir():
        raise DataError(f"no directory {root} (--imagenet_c).")
    tree = DirectoryTree(root)
    parents = [root, *(root / folder for folder in sorted(tree.children("")))]
    found: dict[str, Path] = {}
    for name in CORRUPTIONS:
        places = [parent / name for parent in parents if (parent / name).is_dir()]
        if len(places) > 1:
            raise DataError(f"{name} is there twice: {places[0]} and {places[1]}. Move one of them away.")
        if places:
            found[name] = places[0]
    if not found:
        packed = ", ".join(path.name for path in sorted(root.glob("*.tar")))
        raise DataError(
            f"no corruption in {root}: expected {root}/<corruption>/<severity>/<class>/*.JPEG, as the "
            f"archives of ImageNet-C unpack; the first corruption is {CORRUPTIONS[0]!r}."
            + (f" Unpack what is there: {packed}." if packed else "")
        )
    missing = [f"{path}/{s}" for path in found.values() for s in SEVERITIES if not (path / s).is_dir()]
    if missing:
        raise DataError(
            f"{root} is incomplete: {', '.join(missing[:5])} {'...' if missing[5:] else 'missing'}."
        )
    return found


def _opened(path: Path, severity: str, clean: Source, **how: Any) -> Source:
    """The images of one severity of the corruption in a folder, with the labels of the `clean` source."""
    source = FolderSource(path, severity)
    try:
        fitted = fit_classes(source, clean.class_names, subset=True, **how)
    except ClassNamesError as error:
        raise ClassNamesError(f"{path}/{severity}: {error}") from error
    known = [set(np.unique(getattr(images, "labels", ())).tolist()) for images in (clean, fitted)]
    if lacking := sorted(clean.class_names[k] for k in known[0] - known[1]):
        raise DataError(
            f"{path}/{severity} has no images of {len(lacking)} classes that the clean data has: "
            f"{', '.join(lacking[:5])}{', ...' if lacking[5:] else ''}. Is it unpacked whole?"
        )
    return fitted


def evaluate_corruptions(
    directory: str | Path,
    clean: Source,
    measure: Callable[[Source], Mapping[str, Any]],
    tell: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    *,
    accept_class_names: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measures every corruption and severity in a directory.

    Args:
      directory: of the benchmark.
      clean: the source of uncorrupted images, for their classes.
      measure: results, with "accuracy", on a source; e.g. `evaluator.evaluate` over its batches.
      tell: wraps the list of (corruption, severity), for a progress bar.
      accept_class_names: see `data.class_names`.
      note: called once with each line on the classes' names.

    Returns:
      See `summarise`; "corruptions" has the results of every severity besides.

    Raises:
      DataError: a folder is unreadable, its classes are not those of the `clean` source, or some of these are
        missing.
    """
    folders = corruptions_in(directory)
    results: dict[str, dict[str, Mapping[str, Any]]] = {name: {} for name in folders}
    # Every severity has the same to tell: once is enough.
    how: dict[str, Any] = {"accept": accept_class_names, "tell": cache(note)}
    how |= {"owner": "the clean data", "data": "ImageNet-C"}
    for name, severity in tell([(name, severity) for name in folders for severity in SEVERITIES]):
        results[name][severity] = measure(_opened(folders[name], severity, clean, **how))
    return summarise(results)


def summarise(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Mean errors from the results of every corruption and severity.

    Returns:
      {"mean_error": over all corruptions, shares; "mce": over the benchmark's 15 relative to AlexNet, None if
      one is missing; "missing": those of the 19 that were not measured; "corruptions": {name: {"error": mean
      over severities, "relative_error": to AlexNet's, where that is published, "severities": the results as
      they were}}}. 1 is 100 %.
    """
    corruptions: dict[str, dict[str, Any]] = {}
    for name, severities in results.items():
        errors = [1 - result["accuracy"] for result in severities.values()]
        error = sum(errors) / len(errors)
        relative = {"relative_error": error / ALEXNET_ERRORS[name]} if name in ALEXNET_ERRORS else {}
        corruptions[name] = {"error": error, **relative, "severities": dict(severities)}
    ratios = [part["relative_error"] for part in corruptions.values() if "relative_error" in part]
    return {
        "mean_error": sum(part["error"] for part in corruptions.values()) / len(corruptions),
        "mce": sum(ratios) / len(ratios) if len(ratios) == len(ALEXNET_ERRORS) else None,
        "missing": [name for name in CORRUPTIONS if name not in corruptions],
        "corruptions": corruptions,
    }
