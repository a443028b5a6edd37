"""Instance maps and colour pictures from files, which are untrusted."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from msdm_engine.errors import InputError
from msdm_engine.inputs.picture_header import PictureHeader, picture_header, tiff_as_signed
from msdm_engine.output.records import SHEET_FILE
from msdm_engine.pairs import MAX_LABEL, MAX_SIDE_PX, MIN_SIDE_PX

SUFFIXES = (".png", ".tif", ".tiff", ".npy")
MAX_FILE_BYTES = 512 * 2**20
_NPY = b"\x93NUMPY"


def mask_files(folder: Path) -> list[Path]:
    """The mask files of a folder in the order of their names.

    A contact sheet that msdm has drawn into the folder is no mask and is left out.

    Raises:
        InputError: no such folder, unreadable, or no mask in it.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        found = [path for path in files if path.name != SHEET_FILE]
    except OSError as error:
        raise InputError(
            f"mask folder {folder} cannot be read: {error.strerror}", hint="name a folder of label images"
        ) from error
    if not found:
        raise InputError(
            f"mask folder {folder} holds no mask",
            note=f"instance maps are files ending in {', '.join(SUFFIXES)}",
            hint="name a folder of label images: 0 is background, each nucleus has its own number",
        )
    return found


def read_instances(path: Path) -> np.ndarray:
    """Reads one instance map.

    Holes in nuclei, gaps in the numbering and nuclei in several pieces are legal; one label is one nucleus.

    Args:
        path: PNG (8 or 16 bits) or TIFF (8 to 64 bits) with one channel, or NPY of an integer type. Floating-point
            labels are legal where they are whole numbers.

    Returns:
        [H, W] uint16, labels 1..n without gaps in the order of the file's labels, 0 is background.

    Raises:
        InputError: unreadable, truncated, colour-coded, not two-dimensional, of an illegal size, negative or
            fractional labels, or more than 65535 nuclei.
    """
    return renumbered(path, read_labels(path))


def read_labels(path: Path) -> np.ndarray:
    """The labels of one mask as its file numbers them: [H, W] of any number type, whole and not negative."""
    labels = _read_npy(path) if path.suffix.lower() == ".npy" else _read_labels(path)
    if labels.dtype.kind == "f" and not (np.isfinite(labels).all() and (labels == np.round(labels)).all()):
        raise InputError(
            f"mask {path} holds values that are no whole numbers",
            note="labels are whole numbers: 0 is background, nuclei 1..n",
            hint="an instance map is needed, not probabilities or distances",
        )
    if labels.min() < 0:
        raise InputError(
            f"mask {path} holds the negative label {labels.min()}",
            note="0 is background, nuclei 1..n",
            hint="set ignored pixels to 0",
        )
    return labels


def renumbered(path: Path, labels: np.ndarray) -> np.ndarray:
    """Labels 1..n without gaps, [H, W] uint16; ``path`` names the mask in the error."""
    values, consecutive = np.unique(labels, return_inverse=True)
    offset = 0 if values[0] == 0 else 1
    nuclei = len(values) - 1 + offset
    if nuclei > MAX_LABEL:
        raise InputError(f"mask {path} holds {nuclei} nuclei", note=f"at most {MAX_LABEL}", hint="cut it into tiles")
    return (consecutive.reshape(labels.shape) + offset).astype(np.uint16)


def read_rgb(path: Path) -> np.ndarray:
    """Reads a colour picture, PNG, TIFF or JPEG: [H, W, 3] uint8 RGB, pixels as they are stored.

    Raises:
        InputError: unreadable, truncated, of an illegal size, or not of 8 bits.
    """
    what = f"image {path}"
    data = _read_bytes(path, what)
    header = _header(data, what)
    if header.bits != 8:
        raise InputError(f"{what} has {header.bits} bits a channel", note="8", hint="convert it to 8 bits a channel")
    # An instance map has no orientation tag, so the picture's own is not followed either.
    image = _decoded(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, what)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _read_bytes(path: Path, what: str) -> bytes:
    try:
        _check_is_file(path, what)
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise InputError(f"{what} holds {size} bytes", note=f"at most {MAX_FILE_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{what} cannot be read: {error.strerror or error}") from error


def _check_is_file(path: Path, what: str) -> None:
    """Opening a pipe would wait for ever."""
    if not path.is_file():
        raise InputError(f"{what} cannot be read", note="not a file" if path.exists() else "no such file")


def _header(data: bytes, what: str) -> PictureHeader:
    try:
        header = picture_header(data)
    except ValueError as error:
        raise InputError(f"{what} cannot be read: {error}", hint="copy or save it again, as PNG or TIFF") from error
    _check_sides((header.height, header.width), what)
    if header.allocated_px > MAX_SIDE_PX:
        raise InputError(f"{what} is stored in tiles of {header.allocated_px} px", note=f"at most {MAX_SIDE_PX}")
    return header


def _check_sides(shape: tuple[int, ...], what: str) -> None:
    if not all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in shape):
        raise InputError(
            f"{what} is {shape[0]} x {shape[1]} px",
            note=f"{MIN_SIDE_PX} to {MAX_SIDE_PX} px a side",
            hint="cut it into tiles",
        )


def _decoded(data: bytes, flags: int, what: str) -> np.ndarray:
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise InputError(f"{what} cannot be read: {error}") from error
    if array is None:
        raise InputError(
            f"{what} cannot be read",
            note=f"damaged, or of a kind that OpenCV {cv2.__version__} does not decode",
            hint="save it again, as an 8- or 16-bit PNG",
        )
    return array


def _read_labels(path: Path) -> np.ndarray:
    what = f"mask {path}"
    data = _read_bytes(path, what)
    header = _header(data, what)
    if header.kind == "JPEG":
        raise InputError(
            f"{what} is a JPEG picture", note="JPEG changes labels", hint="export the labels as a 16-bit PNG"
        )
    if not header.grey:
        raise InputError(
            f"{what} has colours: a picture, a palette or a colour-coded mask",
            note="an instance map has one channel, in which each nucleus has its own number",
            hint="convert it: number the nuclei and save a 16-bit greyscale PNG",
        )
    if header.pages > 1:
        raise InputError(f"{what} holds several pictures", note="one map a file", hint="save each map as its own file")
    unsigned32 = header.kind == "TIFF" and header.bits == 32 and header.unsigned
    labels = _decoded(tiff_as_signed(data) if unsigned32 else data, cv2.IMREAD_UNCHANGED, what)
    if labels.shape != (header.height, header.width):
        raise InputError(f"{what} was decoded as {labels.shape}", note=f"its header says {header.height, header.width}")
    return labels.view(np.uint32) if unsigned32 else labels


def _read_npy(path: Path) -> np.ndarray:
    what = f"mask {path}"
    try:
        _check_is_file(path, what)
        with path.open("rb") as file:
            if file.read(len(_NPY)) != _NPY:
                raise InputError(f"{what} is not an NPY file", hint="save the map with numpy.save")
            file.seek(0)
            shape, by_columns, dtype = _npy_header(file)
            _check_npy(shape, dtype, what)
            array = np.fromfile(file, dtype, shape[0] * shape[1])
    except InputError:
        raise
    except Exception as error:  # the header is a Python expression, whose parser fails in many ways
        raise InputError(f"{what} cannot be read: {error}", note="an NPY file of an integer type, no pickle") from error
    if array.size != shape[0] * shape[1]:
        raise InputError(f"{what} is truncated: it holds {array.size} of {shape[0]} x {shape[1]} numbers")
    return array.reshape(shape, order="F" if by_columns else "C")


def _npy_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it is stored by columns, and type. ``numpy.load`` would go on to allocate, or to unpickle."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"its format version is {version[0]}.{version[1]}, not 1.0 or 2.0")


def _check_npy(shape: tuple[int, ...], dtype: np.dtype, what: str) -> None:
    if len(shape) != 2:
        raise InputError(f"{what} has the shape {shape}", note="[height, width], one number a pixel")
    if dtype.kind not in "iufb":
        raise InputError(f"{what} has the type {dtype}", note="an integer type")
    _check_sides(shape, what)
