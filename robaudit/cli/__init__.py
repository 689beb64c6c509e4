"""The command line: parse, call, render. No numerics, and no torch until a measurement begins."""

from robaudit.cli.app import command, main

__all__ = ["command", "main"]
