"""``msdm-engine layout`` and ``msdm-engine edit``: instance maps without a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from msdm_engine.errors import RequestError

PATH = click.Path(path_type=Path)


@click.command()
@click.option("--layout", help="kind: columnar, round, spindle, gland; with --like: instead of the one seen there")
@click.option("--mix", help="kinds and their shares of the plane, as in columnar:0.6,round:0.4")
@click.option("--regions", type=PATH, help="label image whose values name kinds (PNG or TIFF; 0 stays empty)")
@click.option("--region-kinds", help="what the values of --regions mean, as in 1=columnar,2=spindle")
@click.option("--like", type=PATH, help="fit a layout to the instance masks of this folder")
@click.option("--size", help="side in px, or HEIGHTxWIDTH [default: 256; that of --regions or --like]")
@click.option("--count", type=int, default=8, show_default=True, help="maps to draw")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=PATH, required=True, help="folder to write; must not exist or be empty")
@click.option("--nuclei", type=int, help="nuclei in a map, exactly; in a mixture shared out by area")
@click.option("--density", type=float, help="nuclei in a million pixels, instead of --nuclei")
@click.option("--area", type=float, help="median area in px, 30 to 20000")
@click.option("--spread", type=float, help="standard deviation of the log area, 0 to 0.8")
@click.option("--aspect", type=float, help="median aspect ratio, 1 to 8 (round: to 3)")
@click.option("--crowding", type=float, help="0 apart to 1 packed and touching")
@click.option("--rows", type=int, help="rows of an epithelium, 1 to 4 (columnar, gland)")
@click.option("--stroma", type=float, help="0 none to 1 dense, behind an epithelium (columnar, gland)")
@click.option("--orientation", type=float, help="degrees from +x towards +y (columnar: palisade, spindle: flow)")
def layout(count: int, out: Path, **options: Any) -> None:
    """Draw instance maps: 000000.png ... (16-bit labels), layout.json, contact_sheet.png.

    What to draw is one of --layout KIND, --mix, --regions with --region-kinds, or --like. The same options and
    seed give the same bytes.
    """
    from msdm_engine.layouts.job import SHEET_FILE, describe_fit, draw_set
    from msdm_engine.layouts.plan import plan_from_options

    plan = plan_from_options(options)
    drawn = draw_set(plan, count, out)
    if plan.fitted is not None:
        click.echo(describe_fit(plan, drawn))
    click.echo(f"{count} maps, {sum(s.count for s in drawn)} nuclei: {out}\nlook at {out / SHEET_FILE}")


@click.command()
@click.argument("masks", type=PATH)
@click.option("--out", type=PATH, required=True, help="folder to write; must not exist or be empty")
@click.option("--grow", type=float, metavar="PX", help="take the background up to PX px away, up to neighbours")
@click.option("--shrink", type=float, metavar="PX", help="lose the pixels up to PX px from the outside")
@click.option("--vanish", is_flag=True, help="with --shrink: nuclei of which nothing is left go")
@click.option("--elongate", type=float, metavar="FACTOR", help="multiply the aspect ratio, at the same area")
@click.option("--add", type=int, metavar="N", help="put N more nuclei into each map")
@click.option("--remove", type=float, metavar="SHARE", help="take this share of the nuclei out")
@click.option("--swap", type=float, metavar="SHARE", help="give this share of the nuclei other real outlines")
@click.option("--seed", type=int, default=0, show_default=True, help="which nuclei, where, which outlines")
def edit(masks: Path, out: Path, vanish: bool, seed: int, **options: Any) -> None:
    """Edit every instance map of a folder: NAME.png for each (16-bit labels), edit.json, contact_sheet.png.

    One operation at a time; the output folder can be edited again. Nuclei never overlap, labels have no gaps.
    """
    from msdm_engine.layouts.edit import Add, Edit, Elongate, Grow, Remove, Shrink, Swap
    from msdm_engine.layouts.job import SHEET_FILE, edit_set

    given = {name: value for name, value in options.items() if value is not None}
    if len(given) != 1:
        names = ", ".join(f"--{name}" for name in options)
        raise RequestError(f"{len(given)} operations are given", note=f"one of {names}", hint="edit the result again")
    if vanish and "shrink" not in given:
        raise RequestError("--vanish goes with --shrink")
    name, value = next(iter(given.items()))
    operations: dict[str, Callable[..., Edit]] = {
        "grow": Grow,
        "elongate": Elongate,
        "add": Add,
        "remove": Remove,
        "swap": Swap,
    }
    operations["shrink"] = lambda px: Shrink(px, vanish)
    before, after = edit_set(masks, operations[name](value), seed, out)
    click.echo(f"{before} nuclei before, {after} after: {out}\nlook at {out / SHEET_FILE}")
