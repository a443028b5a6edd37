"""A set made by an actor pool of Ray Data: each actor keeps an engine open and makes one shard after another.

A shard is a folder of its own, written pair by pair as any set is. If a worker dies, Ray starts another and calls it
with the same shard, which it resumes: what was whole stays. When all shards are whole they are merged, so the set has
the bytes of one run on one machine; machines of several kinds are refused by the merge, which names the difference.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdm_engine import errors
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import FLOAT32
from msdm_engine.engine import Engine
from msdm_engine.errors import BackendError, MsdmError, RequestError
from msdm_engine.log import Log
from msdm_engine.output.job import FOLDERS, QUIET, check_texts, fill, set_header
from msdm_engine.output.merge import merge_shards
from msdm_engine.output.shard import Shard
from msdm_engine.output.sink import OutputChoice
from msdm_engine.redraw import check_critic_is_asked
from msdm_engine.requests.compose import ComposedGroup, compose
from msdm_engine.requests.request import SetRequest

MAX_WORKERS = 4096
#: Shards for each worker: what a death costs, against the padding of more, smaller shards.
SHARDS_PER_WORKER = 4


@dataclass(frozen=True)
class RayJob:
    """What a job makes and with what.

    Args:
        request: of the whole set; paths in it, and ``bundle`` and ``parts``, are seen by every machine of the cluster.
        parts: folder of the shards.
        workers: actors, 1 to 4096.
        shards: 0: four for each worker, or one for each batch if there are fewer.
        threads: CPU threads of an actor, at least 1: one for each core of whichever machine would not be one set.
        gpus: GPUs of an actor; a fraction shares one.

    Raises:
        RequestError: a number out of range.
    """

    request: SetRequest
    parts: Path
    bundle: Path | None = None
    backend: str = "onnxruntime"
    threads: int = 1
    precision: str = FLOAT32
    batch: int | None = None
    critic: bool = True
    output: OutputChoice = FOLDERS
    workers: int = 2
    shards: int = 0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("workers", self.workers, 1, MAX_WORKERS),
            ("shards", self.shards, 0, 10**6),
            ("threads", self.threads, 1, 1024),
            ("gpus", self.gpus, 0, 64),
        ):
            if not low <= value <= high:
                raise RequestError(f"{name} is {value}", note=f"{low} to {high}")

    def groups(self, bundle: Bundle) -> list[ComposedGroup]:
        """The groups of the set, composed anew on each machine: conditions depend on the request alone."""
        return compose(bundle.manifest, self.request, self.batch)


class ShardMaker:
    """An actor of the pool: opens the engine once, and makes the shards that it is given."""

    def __init__(self, job: RayJob, of: int) -> None:
        self._job, self._of = job, of
        bundle = Bundle.open(job.bundle)
        self._groups = job.groups(bundle)
        self._engine = Engine.open(
            bundle, backend=job.backend, threads=job.threads, parallel=1, precision=job.precision
        )

    def __call__(self, rows: dict[str, Any]) -> dict[str, list[Any]]:
        """Makes the shards of these numbers, or completes them; what fails as it may fail is a row of its own."""
        told: dict[str, list[Any]] = {"shard": [], "error": []}
        for number in map(int, rows["shard"]):
            told["shard"].append(number)
            try:
                self._make(number)
            except MsdmError as error:
                told["error"].append([type(error).__name__, error.what, error.note or "", error.hint or ""])
            else:
                told["error"].append(["", "", "", ""])
        return told

    def _make(self, number: int) -> None:
        shard = Shard(number, self._of)
        wanted = shard.range_of(self._groups)
        sizes = {size for group in self._groups for size in group.work}
        header = set_header(self._engine, self._job.request, self._groups, self._job.critic)
        header |= {"output": self._job.output.header(sizes), "shard": shard.header(wanted)}
        fill(self._engine, self._groups, wanted, _folder(self._job, number), header, resume=True)


def run_ray(job: RayJob, out: Path, *, address: str | None = None, resume: bool = False, log: Log = QUIET) -> int:
    """Makes the set of a job, and removes the folder of its shards when the set is whole.

    Args:
        out: must not exist or be empty, unless ``resume``.
        address: of the cluster; None: a cluster of this machine alone, for the time of the job.
        resume: complete shards and set that an earlier call left.

    Returns:
        the pairs written into ``out``.

    Raises:
        MsdmError: what the request, the bundle, a worker or the merge finds wrong.
    """
    ray = _ray()
    check_critic_is_asked(job.request, job.critic)
    bundle = Bundle.open(job.bundle)
    groups = job.groups(bundle)
    from msdm_engine.conditions.metadata import TextTokenizer

    check_texts(TextTokenizer(bundle.tokenizer, bundle.manifest.text_tokens), groups)
    job.output.header({size for group in groups for size in group.work})
    batches = sum(-(-group.count // group.sampling.batch) for group in groups)
    of = job.shards or min(batches, SHARDS_PER_WORKER * job.workers)
    Shard(0, of).range_of(groups)  # refuses more shards than batches
    for path, told in ((out, "output"), (job.parts, "folder of shards")):
        if not resume and path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise errors.OutputError(
                f"{told} {path} exists and is not empty", hint="choose another --out, or go on with --resume"
            )
    _make_all(ray, job, of, address, log)
    folders = [_folder(job, number) for number in range(of)]
    written = merge_shards(folders, out, resume=resume)
    shutil.rmtree(job.parts)
    log.summary("done", f"{written} pairs from {of} shards: {out}", pairs=written, shards=of, out=str(out))
    return written


def _make_all(ray: Any, job: RayJob, of: int, address: str | None, log: Log) -> None:
    mine = not ray.is_initialized()
    if mine:
        here = {"num_cpus": job.workers * job.threads, "include_dashboard": False} if address is None else {}
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **here)
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # its plans and progress; ours go through the log
        ray.data.DataContext.get_current().enable_progress_bars = False
        numbers = ray.data.from_items([{"shard": number} for number in range(of)], override_num_blocks=of)
        made = numbers.map_batches(
            ShardMaker,
            fn_constructor_args=(job, of),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=job.workers),
            num_cpus=job.threads,
            num_gpus=job.gpus,
        )
        for row in made.iter_rows():
            name, what, note, hint = row["error"]
            if name:
                raise getattr(errors, name)(f"shard {row['shard']}: {what}", note=note or None, hint=hint or None)
            log.detail("shard", number=row["shard"], of=of)
    except ray.exceptions.RayError as error:
        raise BackendError(
            f"Ray stopped the job: {str(error).strip().splitlines()[-1]}",
            note="shards that are whole stay",
            hint="go on with --resume",
        ) from error
    finally:
        if mine:
            ray.shutdown()


def _folder(job: RayJob, number: int) -> Path:
    return job.parts / f"shard-{number:06d}"


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise BackendError("Ray is not installed", hint="pip install 'msdm[scale]'") from error
    return ray
