"""What scripts share: flags whose errors are one line, a script's run. Imports no torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from command_line.interrupts import end_like_ctrl_c, interrupted_status
from command_line.streams import OutputLost, abandon_output, protect_streams
from training.errors import OutOfMemory, UserError

USER_ERROR_STATUS = 2
FAILURE_STATUS = 1
LARGEST_NUMBER = 2**63 - 1


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the script's docstring as it is and shows every default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or isinstance(action.default, bool):
            known = action.required or "default" in (action.help or "") or action.dest == "help"
            default = "none" if action.default is None else "off"
            return action.help if known else f"{action.help} (default: {default})"
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line on stderr with exit status 2."""

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description, formatter_class=_HelpFormatter, allow_abbrev=False
        )

    def error(self, message: str) -> NoReturn:
        """Print one line, without the usage, and exit."""
        self.exit(USER_ERROR_STATUS, f"{self.prog}: error: {message}\n")


def run(main: Callable[[], None]) -> None:
    """Run a script's ``main``; what a user can cause ends in one line instead of a traceback.

    Exit status 2 for a mistake in the input, 1 for what failed otherwise, 128 + N for signal N.
    """
    has_output = protect_streams()
    end_like_ctrl_c()
    try:
        try:
            main()
        finally:
            sys.stdout.flush()  # here, where it can be told that this fails
        if not has_output:
            raise OutputLost("standard output is closed")
    except UserError as error:
        _fail(str(error), USER_ERROR_STATUS)
    except (OutOfMemory, SomeFailed) as error:
        _fail(str(error), FAILURE_STATUS)
    except OutputLost as lost:
        abandon_output()
        if str(lost):
            _fail(str(lost), FAILURE_STATUS)
        sys.exit(FAILURE_STATUS)  # the reader (head, less) has left; there is nobody to tell
    except KeyboardInterrupt as interrupt:
        print(f"\n{str(interrupt) or 'interrupted'}", file=sys.stderr)
        sys.exit(interrupted_status())


def _fail(message: str, status: int) -> NoReturn:
    print(f"{Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)
    sys.exit(status)


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
