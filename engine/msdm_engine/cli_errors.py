"""How every command of msdm reports an error: its three parts on standard error, and the exit code of its class."""

from __future__ import annotations

from typing import Any

import click

from msdm_engine.errors import MsdmError

#: 128 + SIGINT, as shells report it
INTERRUPTED = 130


class MsdmGroup(click.Group):
    """A command group that turns :class:`MsdmError` into a message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; a bug still shows its traceback."""
        try:
            return super().invoke(ctx)
        except MsdmError as error:
            click.echo(f"error: {error.render()}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted: everything finished so far is whole; go on with --resume", err=True)
            ctx.exit(INTERRUPTED)
