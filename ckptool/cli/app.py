"""The program: its commands, and what its exit codes mean.

0 is done with nothing found, 1 findings or differences, 2 anything that kept a command from doing
its job. As shells say it of programs that a signal ended: 130 after Ctrl-C, 143 after SIGTERM while
a file is written, 141 where whoever read the output closed the pipe (`| head -1`).
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ckptool.cli import checking, comparing, editing, reading, scanning
from ckptool.cli.interruption import Terminated
from ckptool.cli.output import failures_to_write, prepare, print_error, print_json
from ckptool.errors import CkptoolError, OutputError

__all__ = ["app", "main"]

_FAILED = 2
_INTERRUPTED = 130
_PIPE_CLOSED = 141


class _Program(TyperGroup):
    """Turns what goes wrong into one line and an exit code, as a process and under test."""

    def main(self, *args: Any, **extra: Any) -> Any:
        is_process = extra.get("standalone_mode", True)
        extra["standalone_mode"] = False
        if not is_process:
            return super().main(*args, **extra)
        try:
            code = super().main(*args, **extra)
        except typer.TyperException as error:
            code = _report_usage(error, sys.argv[1:] if not args else args[0])
        except (KeyboardInterrupt, typer.Abort):
            code = _INTERRUPTED
        except Terminated as error:
            code = error.code
        raise SystemExit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        try:
            with failures_to_write():
                return self._answer(ctx)
        except BrokenPipeError as error:
            raise typer.Exit(_PIPE_CLOSED) from error
        except OutputError as error:
            print_error(str(error), error.hint)
            raise typer.Exit(_FAILED) from error

    def _answer(self, ctx: Any) -> Any:
        arguments = [*getattr(ctx, "_protected_args", ()), *ctx.args]
        try:
            return super().invoke(ctx)
        except CkptoolError as error:
            if "--json" in arguments:
                from ckptool.render.json import error_document

                print_json(error_document(error))
            print_error(str(error), error.hint)
            raise typer.Exit(_FAILED) from error


app = typer.Typer(
    name="ckptool",
    cls=_Program,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("inspect")(reading.inspect)
app.command("list")(reading.list_tensors)
app.command("show")(reading.show)
app.command("check")(checking.check)
app.command("diff")(comparing.diff)
app.command("strip")(editing.strip)
app.command("reset-buffers")(editing.reset_buffers)
app.command("scan")(scanning.scan)
app.command("spec")(checking.spec)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"ckptool {version('ckptool')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Open any PyTorch checkpoint without running it."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(_FAILED)


def _report_usage(error: typer.TyperException, arguments: Sequence[str]) -> int:
    asked = getattr(error, "ctx", None)
    if "--json" in arguments:
        from ckptool.render.json import usage_document

        print_json(usage_document(error.format_message()))
    print_error(error.format_message(), f"{asked.command_path if asked else 'ckptool'} --help")
    return _FAILED


def main() -> None:
    """Run the program on the arguments of the process."""
    prepare()
    # One command makes few cycles and many objects: collecting them, now or at the exit, costs time
    # and frees nothing.
    gc.disable()
    try:
        app()
    finally:
        gc.freeze()
