"""``msdm-calibrate``: what a bundle's numbers are, and what precision they bear."""

from __future__ import annotations

import click

from msdm_calibration.quantize.cli import quantize, sensitivity, where
from msdm_calibration.ranges.cli import ranges
from msdm_engine.cli_errors import MsdmGroup


@click.group(cls=MsdmGroup)
def main() -> None:
    """Measure a bundle's activations on real trajectories, and lower its precision where nobody can tell."""


main.add_command(quantize)
main.add_command(ranges)
main.add_command(sensitivity)
main.add_command(where)

if __name__ == "__main__":
    main()
