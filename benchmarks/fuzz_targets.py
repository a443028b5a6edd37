"""What the fuzzer feeds, and what must hold then: a typed error or success, and never half an output."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from benchmarks.fuzz_mutations import mutate_bytes, mutate_json, mutate_onnx, mutate_png, mutate_text, mutate_tiff
from benchmarks.tiny_bundle import tiny_bundle

from msdm_engine.backends.onnx_external import has_external_data
from msdm_engine.bundle.describe import describe
from msdm_engine.bundle.reader import Bundle
from msdm_engine.conditions.colour import colour_from_image
from msdm_engine.errors import MsdmError
from msdm_engine.inputs.masks import read_instances, read_rgb
from msdm_engine.output.job import generate
from msdm_engine.output.records import read_records
from msdm_engine.output.verify import verify_set, whole_pairs
from msdm_engine.pairs import MAX_LABEL, MAX_SIDE_PX, MIN_SIDE_PX
from msdm_engine.requests.compose import compose
from msdm_engine.requests.file import load_request
from msdm_engine.requests.request import GroupRequest, Invent, SetRequest

#: Sets larger than this are composed and not generated: what a case costs is the mutation's choice.
MAX_PAIRS, MAX_PIXELS = 6, 128 * 128
SMALL = SetRequest((GroupRequest(Invent(), count=3, height_px=16, width_px=24, steps=1),))

REQUESTS = [
    """version: 1
seed: 5
groups:
  - count: 2
    size: 64
    morphology: {layout: round, area_px: 100, crowding: 0.2}
    preset: lilac-round
    colour: {jitter: 6}
    metadata: {indication: violet, description: "round nuclei"}
    guidance: {colour: 0.5, text: 1, sigma_low: 0.1, sigma_high: 5}
    steps: 2
    solver: euler
  - morphology: {masks: masks}
    colour: {image: tile.png, mask: masks/a.png}
    seed: 9
""",
    """{"version": 1, "groups": [{"morphology": "invent", "count": 1, "size": [32, 48], "colour":
 {"foreground": {"mean": [1, 2, 3], "std": [4, 5, 6]}, "background": {"mean": [200, 210.5, 220], "std": [0, 1, 2]}},
 "guidance": {"overall": 2}, "steps": 3, "solver": "euler-ancestral"}]}""",
    """version: 1
groups:
  - {morphology: {layout: columnar, rows: 2, stroma: 0.1, orientation_deg: 30}, count: 1, size: [96, 128]}
  - {morphology: {layout: spindle, density_per_mpx: 900, aspect_ratio: 4}, count: 1, size: 128}
  - {morphology: {layout: gland, count: 12, area_spread: 0.1}, count: 1, size: 128, metadata: {assay: columnar}}
""",
]


@dataclass(frozen=True)
class Workspace:
    """Folder of a worker: ``bundle``, ``request`` with masks and a picture, ``out``."""

    folder: Path
    files: dict[str, bytes]
    masks: dict[str, bytes]
    pictures: dict[str, bytes]

    @staticmethod
    def make(folder: Path) -> Workspace:
        """Writes the seeds of all cases."""
        space = Workspace(folder, tiny_bundle(), _mask_seeds(), _picture_seeds())
        (folder / "request" / "masks").mkdir(parents=True)
        for name in ("a", "b"):
            (folder / "request" / "masks" / f"{name}.png").write_bytes(space.masks["grey8.png"])
        (folder / "request" / "tile.png").write_bytes(space.pictures["rgb8.png"])
        (folder / "bundle").mkdir()
        space.restore()
        return space

    def restore(self, *names: str) -> None:
        """Writes files of the bundle as they were."""
        for name in names or self.files:
            (self.folder / "bundle" / name).write_bytes(self.files[name])

    def with_file(self, name: str, data: bytes, *, hash_fits: bool) -> None:
        """Generates with one file of the bundle exchanged."""
        manifest = json.loads(self.files["manifest.json"])
        if hash_fits:
            manifest["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        try:
            (self.folder / "bundle" / name).write_bytes(data)
            (self.folder / "bundle" / "manifest.json").write_text(json.dumps(manifest))
            self.generated(SMALL)
        finally:
            self.restore(name, "manifest.json")

    def generated(self, request: SetRequest, batch: int | None = 2) -> None:
        """Generates, and raises if anything but whole pairs is there, after success and after an error."""
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        try:
            generate(request, out, bundle=self.folder / "bundle", threads=1, batch=batch)
        except MsdmError:
            if out.exists():
                listed = {record["index"] for record in read_records(out) if record}
                assert set(whole_pairs(out)) == listed and not list(out.rglob(".*")), "half an output after an error"
            raise
        assert verify_set(out).problems == (), "success, and the set is not whole"


def _mask_seeds() -> dict[str, bytes]:
    labels = np.zeros((24, 40), np.int32)
    labels[2:9, 3:20], labels[12:20, 5:30], labels[0:3, 36:40] = 1, 2, 7
    colours = np.stack([labels * 30] * 3, -1).astype(np.uint8)
    seeds = {
        "grey8.png": _encoded(".png", labels.astype(np.uint8)),
        "grey16.png": _encoded(".png", labels.astype(np.uint16) * 300),
        "colour.png": _encoded(".png", colours),
        "bilevel.png": _encoded(".png", (labels > 0).astype(np.uint8), [cv2.IMWRITE_PNG_BILEVEL, 1]),
    }
    for name, kind in (("u1", np.uint8), ("u2", np.uint16), ("i4", np.int32), ("f4", np.float32)):
        for compression in (1, 5, 8):
            parameters = [cv2.IMWRITE_TIFF_COMPRESSION, compression]
            seeds[f"{name}-{compression}.tif"] = _encoded(".tiff", labels.astype(kind), parameters)
    for code in ("u1", ">u2", "<i4", "<u8", "<f8", "?", "<f2"):
        file = io.BytesIO()
        np.save(file, (labels > 0 if code == "?" else labels).astype(code))
        seeds[f"{code.strip('<>?') or 'bool'}.npy"] = file.getvalue()
    return seeds


def _picture_seeds() -> dict[str, bytes]:
    picture = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    alpha = np.concatenate([picture, picture[:, :, :1]], 2)
    return {
        "rgb8.png": _encoded(".png", picture),
        "rgba8.png": _encoded(".png", alpha),
        "rgb16.png": _encoded(".png", picture.astype(np.uint16) * 257),
        "rgb8.tif": _encoded(".tiff", picture, [cv2.IMWRITE_TIFF_COMPRESSION, 1]),
        "lzw.tif": _encoded(".tiff", picture, [cv2.IMWRITE_TIFF_COMPRESSION, 5]),
        "rgb8.jpg": _encoded(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90]),
        "progressive.jpg": _encoded(
            ".jpg", picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2]
        ),
    }


def _encoded(suffix: str, array: np.ndarray, parameters: list[int] | None = None) -> bytes:
    ok, data = cv2.imencode(suffix, array, parameters or [])
    assert ok, f"OpenCV cannot encode {suffix} of {array.dtype}"
    return data.tobytes()


def _mutated_file(rng: random.Random, seeds: dict[str, bytes]) -> tuple[str, bytes]:
    name = rng.choice(sorted(seeds))
    data, other = seeds[name], seeds[rng.choice(sorted(seeds))]
    form = {"png": mutate_png, "tif": mutate_tiff}.get(name.rpartition(".")[2])
    if form is not None and rng.random() < 0.6:
        return name, form(rng, data, other)
    if name.endswith(".npy") and rng.random() < 0.5:  # the header is a Python expression
        head = mutate_text(rng, data[10:128].decode("latin-1")).encode("latin-1", "replace")[:65535]
        return name, data[:8] + len(head).to_bytes(2, "little") + head + data[128:]
    return name, mutate_bytes(rng, data, other)


def fuzz_mask(rng: random.Random, space: Workspace) -> None:
    """A mask file; one that is read must be a legal instance map."""
    name, data = _mutated_file(rng, space.masks)
    path = space.folder / f"mask{Path(name).suffix}"
    path.write_bytes(data)
    instances = read_instances(path)
    assert instances.dtype == np.uint16 and instances.ndim == 2
    assert all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in instances.shape)
    assert set(np.unique(instances)) | {0} == set(range(int(instances.max()) + 1)) and instances.max() <= MAX_LABEL


def fuzz_picture(rng: random.Random, space: Workspace) -> None:
    """A colour picture; one that is read must have colours."""
    name, data = _mutated_file(rng, space.pictures)
    path = space.folder / f"picture{Path(name).suffix}"
    path.write_bytes(data)
    picture = read_rgb(path)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    assert all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in picture.shape[:2])
    colour_from_image(picture, (picture[:, :, 0] > 127).astype(np.uint16))


def fuzz_request(rng: random.Random, space: Workspace) -> None:
    """A request file; one that is legal is composed, and generated where it is small."""
    text, other = rng.choice(REQUESTS), rng.choice(REQUESTS)
    if text.startswith("{") and rng.random() < 0.8:
        text = mutate_json(rng, json.loads(text))
    else:
        text = mutate_text(rng, text, other)
    data = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        data = mutate_bytes(rng, data)
    path = space.folder / "request" / "request.yaml"
    path.write_bytes(data)
    request = load_request(path)
    groups = compose(Bundle.open(space.folder / "bundle").manifest, request, 2)
    pixels = max(height * width for group in groups for height, width in group.work)
    steps = max(group.sampling.steps for group in groups)
    if sum(group.count for group in groups) <= MAX_PAIRS and pixels <= MAX_PIXELS and steps <= 20:
        space.generated(request)
    else:
        describe(request, space.folder / "bundle", 2)


def fuzz_manifest(rng: random.Random, space: Workspace) -> None:
    """The manifest of a bundle whose files are as they were."""
    seed = space.files["manifest.json"]
    if rng.random() < 0.75:
        data = mutate_json(rng, json.loads(seed)).encode()
    else:
        data = mutate_bytes(rng, seed)
    try:
        (space.folder / "bundle" / "manifest.json").write_bytes(data)
        describe(SMALL, space.folder / "bundle", 2)
        space.generated(SMALL)
    finally:
        space.restore("manifest.json")


def fuzz_files(rng: random.Random, space: Workspace) -> None:
    """A file of a bundle. A tokenizer's hash fits half of the time, a graph's never: see :func:`fuzz_graph`."""
    name = rng.choice(sorted(set(space.files) - {"manifest.json"}))
    data, other = space.files[name], space.files[rng.choice(sorted(space.files))]
    if name.endswith(".onnx"):
        changed = mutate_onnx(rng, data) if rng.random() < 0.5 else mutate_bytes(rng, data, other)
        with contextlib.suppress(ValueError):  # no ONNX, which a backend reports
            has_external_data(changed)
        space.with_file(name, changed, hash_fits=False)
    else:
        changed = mutate_json(rng, json.loads(data)).encode() if rng.random() < 0.7 else mutate_bytes(rng, data, other)
        space.with_file(name, changed, hash_fits=rng.random() < 0.5)


def fuzz_graph(rng: random.Random, space: Workspace) -> None:
    """A graph that was made to harm, in a bundle whose hashes fit: ONNX Runtime gets to see it."""
    name = rng.choice(sorted(name for name in space.files if name.endswith(".onnx")))
    data, other = space.files[name], space.files[rng.choice(sorted(space.files))]
    changed = mutate_onnx(rng, data) if rng.random() < 0.6 else mutate_bytes(rng, data, other)
    space.with_file(name, changed, hash_fits=True)


Target = Callable[[random.Random, Workspace], None]
TARGETS: dict[str, tuple[Target, float]] = {
    "manifest": (fuzz_manifest, 0.22),
    "files": (fuzz_files, 0.13),
    "request": (fuzz_request, 0.25),
    "mask": (fuzz_mask, 0.25),
    "picture": (fuzz_picture, 0.15),
}
#: Targets that only run when they are named.
OWN_TARGETS: dict[str, Target] = {"graph": fuzz_graph}


def target_of(seed: int, only: str | None = None) -> tuple[str, Target, random.Random]:
    """The target of a case, and the generator of its random numbers."""
    rng = random.Random(seed)
    name = only or rng.choices(list(TARGETS), [share for _, share in TARGETS.values()])[0]
    return name, OWN_TARGETS[name] if name in OWN_TARGETS else TARGETS[name][0], rng


def run_case(seed: int, space: Workspace, only: str | None = None) -> str:
    """Runs one case: ``accepted``, or the class of the typed error. Anything else is raised."""
    _, target, rng = target_of(seed, only)
    try:
        target(rng, space)
    except MsdmError as error:
        text = error.render()
        assert text and len(text) < 10_000, f"an error of {len(text)} characters"
        text.encode(sys.getdefaultencoding())
        return type(error).__name__
    return "accepted"
