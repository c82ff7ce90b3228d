"""The command `saga`: run sagas, look at executions, say how they are to go on, and keep the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from saga_engine.command import CONFIG_FILE, EPILOG
from saga_engine.commands import (
    cancel,
    connect,
    edit,
    export,
    list_,
    preview,
    purge,
    recover,
    replay,
    resolve,
    resume,
    run,
    show,
    signal,
    skip,
    undo,
    worker,
)

__all__ = ["main"]

_SECTIONS: Mapping[str, Sequence[click.Command]] = {
    "Run": (run, worker, recover),
    "Look": (list_, show, preview),
    "Say, for the record": (signal, cancel, resume, skip, resolve, edit, undo),
    "Keep": (export, replay, purge),
    "Try": (connect,),
}


class _InSections(click.Group):
    """Lists its commands by what they are for."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(str(command.name), command.get_short_help_str(200)) for command in commands])


@click.group(cls=_InSections, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="saga-engine", prog_name="saga")
@click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    envvar="SAGA_CONFIG",
    show_envvar=True,
    help="TOML or YAML: the journal, variables for steps, plugins, extensions, modules.",
)
def main(config_file: str | None) -> None:
    """Run sagas and look after their executions.

    A saga is named MODULE:CLASS; modules are looked for in the current directory first. An execution is named
    SAGA:KEY, which means its latest generation, or SAGA:KEY#2; a child saga in it SAGA:KEY/CHILD.
    """
    click.get_current_context().meta[CONFIG_FILE] = config_file


for _commands in _SECTIONS.values():
    for _command in _commands:
        main.add_command(_command)
