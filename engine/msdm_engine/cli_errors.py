"""How every command of msdm reports an error: its three parts on standard error, and the exit code of its class."""

from __future__ import annotations

from typing import Any

import click

from msdm_engine.errors import MsdmError
from msdm_engine.log import Log

#: 128 + SIGINT, as shells report it
INTERRUPTED = 130


class MsdmGroup(click.Group):
    """A command group that turns :class:`MsdmError` into a message and an exit code.

    A command that logs in another way puts its :class:`Log` into the root context's ``obj``.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; a bug still shows its traceback."""
        try:
            return super().invoke(ctx)
        except MsdmError as error:
            (ctx.find_object(Log) or Log()).error(error)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            (ctx.find_object(Log) or Log()).interrupted(INTERRUPTED)
            ctx.exit(INTERRUPTED)
