"""The page of the commands, from the scripts' own parsers."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

# Script and flags that choose which of its flags there are.
VARIANTS: Sequence[tuple[str, ...]] = (
    ("threshold_search/binary_search.py",),
    ("threshold_search/success_rate.py",),
    ("threshold_search/merge_logs.py",),
    ("mlp_experiments/train_mlp.py",),
    ("transformer_experiments/train_transformer.py",),
    ("transformer_experiments/train_transformer.py", "--architecture", "decoder-only"),
    ("visualizations/figures.py",),
    ("study/pages.py",),
    ("dataset/synthetic_generator.py",),
)


class _Parsed(Exception):
    """Carries a script's parser away from where it was made."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def commands_page(checkout: Path) -> str:
    """Return the page: for each script its examples, what it does, and its flags by group."""
    sys.path.insert(0, str(checkout))
    parts = [
        "# Commands\n",
        "Run from the root of the checkout, in the environment of the installation. A script says "
        "the same with `--help`. A mistake in the input is one line on stderr and exit status 2; "
        "what fails otherwise has status 1.\n",
    ]
    for script, *flags in VARIANTS:
        parser = _parser_of(script, flags)
        parts.append(f"## {' '.join([script, *flags])}\n")
        parts += _description(parser)
        for group in parser._action_groups:
            if table := _table(parser, group):
                parts += [f"**{_plain(group.title or '')}**\n", table]
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, child in action.choices.items():
                    parts.append(f"### {script} {name}\n")
                    parts += _description(child)
                    tables = [_table(child, group) for group in child._action_groups]
                    parts += [table for table in tables if table]
    return "\n".join(parts).replace(f"{checkout}/", "")


def _parser_of(script: str, flags: Sequence[str]) -> argparse.ArgumentParser:
    from command_line.parser import Parser

    def read(parser: argparse.ArgumentParser) -> None:
        raise _Parsed(parser)

    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    before = Parser.parse_args, sys.argv
    Parser.parse_args, sys.argv = read, [script, *flags]  # type: ignore[method-assign, assignment]
    try:
        module.main()
    except _Parsed as found:
        return found.parser
    finally:
        Parser.parse_args, sys.argv = before  # type: ignore[method-assign]
    raise AssertionError(f"{script} has no parser")


def _description(parser: argparse.ArgumentParser) -> list[str]:
    """Return the examples as shell; the rest as prose, or as it is where lines are set off."""
    commands, *rest = (parser.description or "").split("\n\n")
    lines = [line.removeprefix("    ") for line in commands.splitlines()]
    parts = ["```sh", *lines, "```\n"]
    for block in rest:
        is_set = "\n    " in block
        parts.append(f"```text\n{block}\n```\n" if is_set else f"{_plain(block.strip())}\n")
    return parts


def _table(parser: argparse.ArgumentParser, group: argparse._ArgumentGroup) -> str:
    """Return a table of the flags of a group, "" for none; the help says the defaults."""
    formatter = parser._get_formatter()
    rows = []
    for action in group._group_actions:
        if action.dest in ("help", "version") or action.help is argparse.SUPPRESS:
            continue
        if isinstance(action, argparse._SubParsersAction):
            continue
        value = "" if action.nargs == 0 else formatter._format_args(action, action.dest.upper())
        flag = f"{action.option_strings[0]} {value}" if action.option_strings else value
        text, _, default = formatter._expand_help(action).rpartition(" (default: ")
        if not text:
            text, default = default, "required" if action.required else ""
        rows.append(
            f"| `{flag.strip()}` | {_plain(text)} | {_plain(default.removesuffix(')'))} |\n"
        )
    return (
        "".join(["| flag | what it does | default |\n| --- | --- | --- |\n", *rows]) if rows else ""
    )


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is, in one line of a table."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))
