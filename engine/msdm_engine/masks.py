"""Instance maps from files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from msdm_engine.errors import InputError

SUFFIXES = (".png", ".tif", ".tiff", ".npy")
MIN_SIDE_PX, MAX_SIDE_PX = 16, 8192
MAX_LABEL = 65535
MAX_FILE_BYTES = 512 * 2**20


def mask_files(folder: Path) -> list[Path]:
    """The mask files of a folder in the order of their names.

    Raises:
        InputError: no such folder, unreadable, or no mask in it.
    """
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise InputError(f"mask folder {folder} cannot be read: {error.strerror}") from error
    if not found:
        raise InputError(
            f"mask folder {folder} holds no mask",
            note=f"instance maps are files ending in {', '.join(SUFFIXES)}",
            hint="name a folder of label images: 0 is background, each nucleus has its own number",
        )
    return found


def read_instances(path: Path) -> np.ndarray:
    """Reads one instance map.

    Args:
        path: PNG or TIFF of 8, 16 or 32 bits with one channel, or NPY of an integer type.

    Returns:
        [H, W] uint16, labels 1..n without gaps, 0 is background.

    Raises:
        InputError: unreadable, colour-coded, not two-dimensional, of an illegal size, negative or fractional
            labels, or more than 65535 nuclei.
    """
    labels = _read_npy(path) if path.suffix.lower() == ".npy" else _read_picture(path)
    if labels.ndim == 3 and labels.shape[2] in (3, 4):
        raise InputError(
            f"mask {path} has {labels.shape[2]} channels: a picture or a colour-coded mask",
            note="an instance map has one channel, in which each nucleus has its own number",
            hint="convert it: number the nuclei and save a 16-bit greyscale PNG",
        )
    if labels.ndim != 2:
        raise InputError(f"mask {path} has the shape {labels.shape}", note="expected height x width")
    if not all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in labels.shape):
        raise InputError(
            f"mask {path} is {labels.shape[0]} x {labels.shape[1]} px", note=f"{MIN_SIDE_PX} to {MAX_SIDE_PX} px a side"
        )
    if labels.dtype.kind == "f":
        if not (np.isfinite(labels).all() and (labels == np.round(labels)).all()):
            raise InputError(f"mask {path} holds values that are no whole numbers", note="labels are whole numbers")
        labels = labels.astype(np.int64)
    if labels.min() < 0:
        raise InputError(f"mask {path} holds the negative label {labels.min()}", note="0 is background, nuclei 1..n")
    values, consecutive = np.unique(labels, return_inverse=True)
    if len(values) > MAX_LABEL:
        raise InputError(f"mask {path} holds {len(values)} labels", note=f"at most {MAX_LABEL}")
    offset = 0 if values[0] == 0 else 1
    return (consecutive.reshape(labels.shape) + offset).astype(np.uint16)


def _read_npy(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")
        if array.nbytes > MAX_FILE_BYTES:
            raise InputError(f"mask {path} holds {array.nbytes} bytes", note=f"at most {MAX_FILE_BYTES}")
        array = np.array(array)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"mask {path} cannot be read: {error}", note="an NPY file of an integer type") from error
    if array.dtype.kind not in "iufb":
        raise InputError(f"mask {path} has the type {array.dtype}", note="an integer type")
    return array


def _read_picture(path: Path) -> np.ndarray:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"mask {path} holds {path.stat().st_size} bytes", note=f"at most {MAX_FILE_BYTES}")
        data = np.fromfile(path, np.uint8)
        # A file that is cut short makes OpenCV fail in several ways; all mean the same to the user.
        array = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    except (OSError, cv2.error) as error:
        raise InputError(f"mask {path} cannot be read: {error}") from error
    if array is None:
        raise InputError(f"mask {path} cannot be read", note="missing, truncated, or not a PNG or TIFF image")
    return array


def read_rgb(path: Path) -> np.ndarray:
    """Reads a colour picture: [H, W, 3] uint8 RGB.

    Raises:
        InputError: unreadable or no 8-bit colour picture.
    """
    try:
        data = np.fromfile(path, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, cv2.error) as error:
        raise InputError(f"image {path} cannot be read: {error}") from error
    if image is None:
        raise InputError(f"image {path} cannot be read", note="missing, truncated, or not an image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
