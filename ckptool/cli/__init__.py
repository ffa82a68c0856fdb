"""The command line: parse, call, render, exit code."""

from ckptool.cli.app import main

__all__ = ["main"]
