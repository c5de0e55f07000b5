"""ImageNet-C: error under 19 corruptions at 5 severities (Hendrycks and Dietterich, ICLR 2019).

There are two figures. `mean_error` is the mean error over all available corruptions, as in the code of the
alias-free paper (which uses 19). `mce` is the benchmark's mean corruption error: each of its 15 errors is
divided by AlexNet's error before averaging.
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

# AlexNet's mean error over the severities, published with the benchmark.
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
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")  # in the benchmark, but not in its mCE
CORRUPTIONS = (*ALEXNET_ERRORS, *EXTRA)


def corruptions_in(directory: str | Path) -> dict[str, Path]:
    """Finds the corruptions in a directory.

    A corruption is DIR/<corruption>/<severity>/<class>/*.JPEG. It may also lie one folder deeper, in a folder
    named like its archive: DIR/blur/defocus_blur/...

    Args:
      directory: Directory of the benchmark.

    Returns:
      The folder of each corruption, in the usual order.

    Raises:
      DataError: There is no corruption, one exists twice, or a severity is missing.
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
            raise DataError(f"{name} exists twice: {places[0]} and {places[1]}. Remove one of them.")
        if places:
            found[name] = places[0]
    if not found:
        packed = ", ".join(path.name for path in sorted(root.glob("*.tar")))
        raise DataError(
            f"no corruption in {root}: expected {root}/<corruption>/<severity>/<class>/*.JPEG, as in the "
            f"archives of ImageNet-C. A corruption is, for example, {CORRUPTIONS[0]!r}."
            + (f" Unpack these archives: {packed}." if packed else "")
        )
    missing = [f"{path}/{s}" for path in found.values() for s in SEVERITIES if not (path / s).is_dir()]
    if missing:
        raise DataError(
            f"{root} is incomplete: {', '.join(missing[:5])} {'...' if missing[5:] else 'missing'}."
        )
    return found


def _opened(path: Path, severity: str, clean: Source, **how: Any) -> Source:
    """Images of one corruption and severity, with the labels of the `clean` source."""
    source = FolderSource(path, severity)
    try:
        fitted = fit_classes(source, clean.class_names, subset=True, **how)
    except ClassNamesError as error:
        raise ClassNamesError(f"{path}/{severity}: {error}") from error
    known = [set(np.unique(getattr(images, "labels", ())).tolist()) for images in (clean, fitted)]
    if lacking := sorted(clean.class_names[k] for k in known[0] - known[1]):
        raise DataError(
            f"{path}/{severity} has no images of {len(lacking)} classes that the clean data has: "
            f"{', '.join(lacking[:5])}{', ...' if lacking[5:] else ''}. Was the archive unpacked completely?"
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

    Source: Hendrycks and Dietterich 2019 (arXiv 1903.12261).

    Args:
      directory: Directory of the benchmark.
      clean: Source of the clean images, for their classes.
      measure: Returns the results, with "accuracy", for a source, e.g. `evaluator.evaluate` for its batches.
      tell: Wraps the list of (corruption, severity), for a progress bar.
      accept_class_names: See `data.class_names`.
      note: Called once with each message about class names.

    Returns:
      See `summarise`.

    Raises:
      DataError: A folder is unreadable, has classes that the `clean` source lacks, or lacks some of its
        classes.
    """
    folders = corruptions_in(directory)
    results: dict[str, dict[str, Mapping[str, Any]]] = {name: {} for name in folders}
    # All severities have the same messages, so each message is shown only once.
    how: dict[str, Any] = {"accept": accept_class_names, "tell": cache(note)}
    how |= {"owner": "the clean data", "data": "ImageNet-C"}
    for name, severity in tell([(name, severity) for name in folders for severity in SEVERITIES]):
        results[name][severity] = measure(_opened(folders[name], severity, clean, **how))
    return summarise(results)


def summarise(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Computes mean errors from the results of every corruption and severity.

    Source: Hendrycks and Dietterich 2019 (arXiv 1903.12261) for `mce`; `mean_error` as in the code of
    Michaeli et al. 2023 (arXiv 2303.08085).

    Args:
      results: Results with "accuracy", by corruption and severity.

    Returns:
      A dictionary. All errors are proportions; 1 is 100 %.

        - "mean_error": mean over all measured corruptions.
        - "mce": mean over the benchmark's 15 corruptions of the errors divided by AlexNet's; None if one is
          missing.
        - "missing": the corruptions of the 19 that were not measured.
        - "corruptions": for each one its "error" (mean over severities), "relative_error" (divided by
          AlexNet's, if that is published) and "severities" (the given results).
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
