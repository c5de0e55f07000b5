"""Downloads the weights that antialiased-cnns published, such as antialiased-cnns/resnet50_lpf4_finetune.

`lpf4` is a network with filters of 4 taps, trained from scratch. `lpf4_finetune` was trained from
torchvision's weights. The original's main.py chooses the file by flags. With -a resnet50_lpfN:

    --pretrained                       resnet50_lpf4_finetune for 4 taps, resnet50_lpfN for 2, 3 and 5
    --pretrained --force_nonfinetuned  resnet50_lpfN (ignored for vgg16_bn, and for networks with only a
                                       lpf4_finetune file)

The files are cached in $XDG_CACHE_HOME/aliasfree_jax/antialiased-cnns, by default in
~/.cache/aliasfree_jax/antialiased-cnns. The environment variable ALIASFREE_ANTIALIASED_CNNS_URL names a
mirror: https://... or file:///a/directory.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from urllib.request import urlopen

from tqdm import tqdm

from aliasfree_jax.errors import ConversionError, unknown

PREFIX = "antialiased-cnns/"
MIRROR = "ALIASFREE_ANTIALIASED_CNNS_URL"
ADDRESS = "https://antialiased-cnns.s3.us-east-2.amazonaws.com/weights_v0.1"
TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 20

VARIANTS = ("lpf2", "lpf3", "lpf4", "lpf5", "lpf4_finetune")
# The first digits of each file's SHA-256. They are part of its name.
_DIGITS = {
    "alexnet": "da8aca74 f9bbc410 0114fe25 4fa3706a 20598a7a",
    "vgg16": "60268e0c e9b0ce42 de9267ac 1391f70c 79c9dff7",
    "vgg16_bn": "2c2052a8 1782878a a1c3559b c500b52f 1dd798d1",
    "resnet18": "6e2ee76f 449351b9 8c77af40 c1eed0a1 8cc58f59",
    "resnet34": "4707aed9 16aa6c48 55747267 85283561 db622952",
    "resnet50": "f0f7589d a4e868d2 994b528f 9953c9ad cad66808",
    "resnet101": "3d00941d 928f1444 f8a116ff 1f3745af 9280acb0",
    "densenet121": "7da7d4cd 0f267ad8 edeaab00 ebc7880c eceaa619",
    "mobilenet_v2": "f4379012 23b2e2ee 2e0b9cb9 ab8fe968 7eed94b1",
    "vgg11": "35eab449",  # from here on, only lpf4_finetune was published
    "vgg13": "d8ff02c4",
    "vgg19": "7ab2cf45",
    "vgg11_bn": "5d60b5e4",
    "vgg13_bn": "45e2a72f",
    "vgg19_bn": "d0114293",
    "resnet152": "7f67d9ae",
    "resnext50_32x4d": "9106e549",
    "resnext101_32x8d": "8f13a25d",
    "wide_resnet50_2": "02a183f7",
    "wide_resnet101_2": "da4eae04",
    "densenet161": "a5e0f328",
    "densenet169": "992131e6",
    "densenet201": "736979b2",
}
PUBLISHED = {
    f"{model}_{variant}": digits
    for model, row in _DIGITS.items()
    for variant, digits in zip(VARIANTS[-len(row.split()) :], row.split(), strict=True)
}


def fetch_published(reference: str, tell: Callable[[str], None] = print) -> Path:
    """Returns the file of published weights that a reference names. Downloads it unless it is cached.

    The file's SHA-256 is compared with the published digits on every call, and before a new file is cached.

    Args:
      reference: "antialiased-cnns/" and a name of `PUBLISHED`.
      tell: Called with a message if the cached file is damaged.

    Returns:
      The path of the cached file.

    Raises:
      ConversionError: The name was never published, the file cannot be downloaded or stored, or its content
        is wrong. Nothing is cached then.
    """
    digits = PUBLISHED.get(reference.removeprefix(PREFIX))
    if digits is None:
        raise ConversionError(_not_published(reference.removeprefix(PREFIX)))
    file = f"{reference.removeprefix(PREFIX)}-{digits}.pth"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    path = cache / "aliasfree_jax" / "antialiased-cnns" / file
    address = f"{os.environ.get(MIRROR, ADDRESS).rstrip('/')}/{file}"
    try:
        if path.exists():
            with path.open("rb") as content:
                if hashlib.file_digest(content, "sha256").hexdigest().startswith(digits):
                    return path
            tell(f"{reference}: {path} is damaged. It is downloaded again.")
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(address, path, digits)
    except OSError as error:  # a disk error: `_chunks` handles network errors
        raise ConversionError(
            f"{reference}: {path} cannot be stored ({error.strerror}). Fix that, or set XDG_CACHE_HOME to a "
            "writable directory."
        ) from error
    return path


def _not_published(name: str) -> str:
    model = name.partition("_lpf")[0]
    if model not in _DIGITS:
        return unknown(f"published name {PREFIX}{name}: network", model, _DIGITS)
    there = [PREFIX + other for other in PUBLISHED if other.partition("_lpf")[0] == model]
    return f"{PREFIX}{name} was never published. The files for {model}: {', '.join(there)}."


def _download(address: str, path: Path, digits: str) -> None:
    """Downloads a file, checks it and then renames it to `path`."""
    new = path.with_name(f".{path.name}.{os.getpid()}.part")
    found = hashlib.sha256()
    try:
        with new.open("wb") as file:
            for chunk in _chunks(address, path):
                found.update(chunk)
                file.write(chunk)
        if not found.hexdigest().startswith(digits):
            raise ConversionError(
                f"{address} has a SHA-256 that begins with {found.hexdigest()[:8]}, expected {digits}. The "
                f"download is damaged, or {MIRROR} has another file. No part of it is kept. Try again."
            )
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _chunks(address: str, path: Path) -> Iterator[bytes]:
    """Yields the content of `address` with a progress bar."""
    try:
        with urlopen(address, timeout=TIMEOUT) as answer:
            total, done = answer.headers["Content-Length"], 0
            bar = tqdm(total=int(total) if total else None, unit="B", unit_scale=True, desc=path.name)
            with bar:
                while chunk := answer.read(CHUNK):
                    yield chunk
                    done += len(chunk)
                    bar.update(len(chunk))
        if total and done != int(total):
            raise IncompleteRead(b"", int(total) - done)
    except (OSError, ValueError, HTTPException) as error:  # failed request, bad address, truncated download
        raise ConversionError(
            f"{address} cannot be downloaded ({error or type(error).__name__}). Check the network, name a "
            f"mirror in {MIRROR}, or save the file as {path}."
        ) from error
