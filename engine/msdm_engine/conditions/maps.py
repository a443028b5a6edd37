"""Morphology as maps: instance map -> foreground, horizontal and vertical maps, and one-hot nucleus classes.

The horizontal and vertical (HV) maps follow HoVer-Net: Graham et al., *HoVer-Net: Simultaneous segmentation and
classification of nuclei in multi-tissue histology images*, Medical Image Analysis 58 (2019), section 3.1. Each
nuclear pixel holds its distance to the centre of mass of its nucleus, scaled within that nucleus to [-1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from msdm_engine.errors import InputError


def maps_from_instances(instances: NDArray[np.integer]) -> NDArray[np.float32]:
    """Foreground, horizontal and vertical maps of an instance map (HoVer-Net, section 3.1).

    The negative and the positive side of each nucleus are scaled separately, so that its leftmost and topmost
    pixels hold -1, its rightmost and bottommost pixels +1, and its centre of mass 0. The centre of mass is not
    rounded to a pixel (HoVer-Net's reference code rounds it): the maps of a shape do not depend on where it lies.

    - A nucleus that is one pixel wide (high) holds 0 in the horizontal (vertical) map.
    - A nucleus in several pieces is one nucleus: one label, one centre of mass.
    - A nucleus cut by the border is measured by its visible part, as nothing else is known of it.

    Args:
        instances: [H, W] of any integer type; 0 is background, every other value one nucleus. Gaps in the
            numbering are legal.

    Returns:
        [3, H, W] float32: foreground (-1 background, +1 nucleus), horizontal (x, to the right) and vertical
        (y, downwards) in [-1, 1], 0 on background.

    Raises:
        InputError: not two-dimensional, not of an integer type, or a negative label.
    """
    _check_instances(instances)
    maps = np.zeros((3, *instances.shape), np.float32)
    maps[0] = np.where(instances != 0, np.float32(1), np.float32(-1))
    ys, xs = np.nonzero(instances)
    if not ys.size:
        return maps
    index, count = _dense_labels(instances[ys, xs])
    # Raster order visits y in ascending order; x ascends in the raster order of the transposed map.
    maps[2, ys, xs] = _scaled_offsets(ys, index, count)
    xs, ys = np.nonzero(np.ascontiguousarray(instances.T))
    index, count = _dense_labels(instances[ys, xs])
    maps[1, ys, xs] = _scaled_offsets(xs, index, count)
    return maps


def class_maps_from_instances(
    instances: NDArray[np.integer], classes: Mapping[int, int] | NDArray[np.integer], n_classes: int
) -> NDArray[np.float32]:
    """One-hot maps of the nucleus classes; background belongs to no class.

    Args:
        instances: [H, W] of any integer type, 0 background.
        classes: class of each label, in 0..n_classes-1: a mapping from label to class, or a vector indexed by
            label (entry 0, the background's, is not read). Labels that are not in the map are ignored.
        n_classes: K, the number of maps.

    Returns:
        [K, H, W] float32: +1 where a pixel belongs to a nucleus of that class, -1 elsewhere.

    Raises:
        InputError: an instance map that :func:`maps_from_instances` would refuse, a label of the map without a
            class, or a class outside 0..n_classes-1.
    """
    _check_instances(instances)
    if n_classes < 1:
        raise InputError(f"n_classes is {n_classes}", note="legal: 1 or more", hint="leave class maps out instead")
    labels, index = np.unique(instances, return_inverse=True)
    class_of = np.full(labels.size, -1, np.int64)
    for at, label in enumerate(labels.tolist()):
        if label != 0:
            class_of[at] = _class_of_label(label, classes, n_classes)
    class_map = class_of[index].reshape(instances.shape)
    hot = class_map == np.arange(n_classes)[:, None, None]
    return np.where(hot, np.float32(1), np.float32(-1))


def _class_of_label(label: int, classes: Mapping[int, int] | NDArray[np.integer], n_classes: int) -> int:
    known = label in classes if isinstance(classes, Mapping) else label < len(classes)
    if not known:
        raise InputError(
            f"nucleus {label} has no class",
            note=f"classes are given for {len(classes)} labels",
            hint="give each label of the instance map a class, or leave class maps out",
        )
    value = int(classes[label])
    if not 0 <= value < n_classes:
        raise InputError(
            f"nucleus {label} has class {value}",
            note=f"legal: 0 to {n_classes - 1}",
            hint="number the classes from 0, without one for the background",
        )
    return value


def _check_instances(instances: NDArray[np.integer]) -> None:
    if instances.ndim != 2:
        raise InputError(
            f"an instance map of shape {list(instances.shape)}",
            note="legal: [H, W], one label a pixel",
            hint="pass one picture at a time, without a channel axis",
        )
    if not np.issubdtype(instances.dtype, np.integer):
        raise InputError(
            f"an instance map of dtype {instances.dtype}",
            note="legal: an integer type, 0 background, one value for each nucleus",
            hint="label a binary mask first, for example with cv2.connectedComponents",
        )
    if instances.size and instances.min() < 0:
        raise InputError(
            f"an instance map with the label {instances.min()}",
            note="legal: 0 for background and positive labels",
            hint="set ignored pixels to 0 before the maps are computed",
        )


def _dense_labels(labels: NDArray[np.integer]) -> tuple[NDArray[np.intp], int]:
    """Labels as small indices into tables, and the length of such a table."""
    top = int(labels.max())
    if top <= labels.size:
        return labels.astype(np.intp), top + 1
    # Sorting a few labels (a crop of a large field) is cheaper than tables as long as the largest label.
    values, index = np.unique(labels, return_inverse=True)
    return index, values.size


def _scaled_offsets(position: NDArray[np.intp], index: NDArray[np.intp], count: int) -> NDArray[np.float64]:
    """Offset of each pixel to the centre of mass of its nucleus, each side scaled by its own extreme.

    Args:
        position: [P] coordinate of each foreground pixel along one axis, ascending.
        index: [P] the pixel's nucleus, below ``count``.
    """
    size = np.bincount(index, minlength=count)
    centre = np.bincount(index, weights=position, minlength=count) / np.maximum(size, 1)
    # In an assignment with repeated indices the last one stays, and positions ascend: no sort is needed.
    first, last = np.zeros(count), np.zeros(count)
    first[index[::-1]] = position[::-1]
    last[index] = position
    below, above = centre - first, last - centre
    offset = position - centre[index]
    # A side without extent holds no pixel but the centre's, whose offset is 0; dividing it by 1 keeps it 0.
    below[below <= 0], above[above <= 0] = 1.0, 1.0
    return offset / np.where(offset < 0, below[index], above[index])
