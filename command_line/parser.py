"""What scripts share: flags whose errors are one line, a script's run. Imports no torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from command_line.interrupts import (
    end_like_ctrl_c,
    exit_when_interrupted,
    interrupted_status,
)
from command_line.streams import OutputLost, abandon_output, protect_streams
from command_line.version import PROJECT, own_version
from training.errors import OutOfMemory, UserError

USER_ERROR_STATUS = 2
FAILURE_STATUS = 1
LARGEST_NUMBER = 2**63 - 1
FIGURE_SUFFIXES = (".png", ".pdf")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the script's docstring as it is and shows every default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or isinstance(action.default, bool):
            is_optional = bool(action.option_strings) and not action.required
            known = not is_optional or "default" in (action.help or "") or action.dest == "help"
            default = "none" if action.default is None else "off"
            return action.help if known else f"{action.help} (default: {default})"
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line on stderr with exit status 2."""

    def __init__(self, description: str | None, **others: Any) -> None:
        """Take a script's docstring, and what argparse passes on to subcommands."""
        super().__init__(
            description=_commands_first(description or ""),
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
            **others,
        )
        self.add_argument(
            "--version",
            action="version",
            version=f"{PROJECT} {own_version()}",
            help="show the project's version and exit",
        )

    def format_help(self) -> str:
        """Return the help; its usage leaves the many optional flags to the list below it."""
        needed = [a for a in self._actions if a.required or not a.option_strings]
        self.usage = " ".join(["%(prog)s", *map(_usage_of, needed), "[FLAGS]"])
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Print one line, without the usage, and exit."""
        self.exit(USER_ERROR_STATUS, _error(self.prog, message) + "\n")


def _commands_first(description: str) -> str:
    """Return a docstring with its indented block, commands to paste, before everything else."""
    blocks = description.strip("\n").split("\n\n")
    return "\n\n".join(sorted(blocks, key=lambda block: not block.startswith("    ")))


def _usage_of(action: argparse.Action) -> str:
    value = action.metavar or action.dest.upper()
    if action.option_strings:
        return f"{action.option_strings[0]} {value}"
    return str(value) if action.required else f"[{value}]"


def begin() -> None:
    """Make ready for a script's imports, which take a while: a Ctrl-C is no traceback."""
    exit_when_interrupted()


def run(main: Callable[[], None]) -> None:
    """Run a script's ``main``; what a user can cause ends in one line instead of a traceback.

    Exit status 2 for a mistake in the input, 1 for what failed otherwise, a standard output that
    is lost included, and 128 + N for signal N.
    """
    protect_streams()
    end_like_ctrl_c()
    status, message = _attempt(main)
    lost_status, lost = _attempt(sys.stdout.flush)  # here, where it can be told that this fails
    for line in filter(None, (message, lost)):
        print(line, file=sys.stderr)
    if status := status or lost_status:
        sys.exit(status)


def _attempt(action: Callable[[], object]) -> tuple[int, str]:
    """Return the exit status that ``action`` ends with, and what to say of it on stderr."""
    program = Path(sys.argv[0]).name
    try:
        action()
    except SystemExit as end:  # of --help and of mistakes in the flags, which have been printed
        return int(end.code or 0), ""
    except UserError as error:
        return USER_ERROR_STATUS, _error(program, error)
    except (OutOfMemory, SomeFailed) as error:
        return FAILURE_STATUS, _error(program, error)
    except MemoryError:
        return FAILURE_STATUS, _error(program, "not enough memory")
    except OutputLost as lost:
        abandon_output()
        return FAILURE_STATUS, _error(program, lost) if str(lost) else ""
    except KeyboardInterrupt as interrupt:
        abandon_output()  # its reader may take its time
        return interrupted_status(), f"\n{str(interrupt) or 'interrupted'}"
    return 0, ""


def _error(program: str, message: object) -> str:
    """Return the one line of an error: what could break it or move the cursor is escaped."""
    return f"{program}: error: " + "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(message)
    )


class SomeFailed(Exception):
    """A part of the work could not be done; the rest was. Exit status 1."""


def whole_number(smallest: int) -> Callable[[str], int]:
    """Return a flag type: whole numbers from ``smallest`` to what an int64 holds."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < smallest:
            raise argparse.ArgumentTypeError(f"must be at least {smallest}, got {value}")
        if value > LARGEST_NUMBER:
            raise argparse.ArgumentTypeError(f"must be at most {LARGEST_NUMBER}")
        return value

    return parse


positive_int = whole_number(1)
non_negative_int = whole_number(0)


def user_path(text: str) -> Path:
    """Flag type of paths. A shell leaves the ~ of ``--save=~/w.pt`` as it is."""
    if not text:
        raise argparse.ArgumentTypeError("a path is needed, got an empty one")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"no home folder is known for {text!r}") from None


def figure_path(text: str) -> Path:
    """Flag type of files to draw into."""
    path = user_path(text)
    if path.suffix.lower() not in FIGURE_SUFFIXES:
        raise argparse.ArgumentTypeError(f"must end in {' or '.join(FIGURE_SUFFIXES)}, got {text}")
    return path
