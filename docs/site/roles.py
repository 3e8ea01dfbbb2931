"""Docstrings name other objects as :class:`~package.module.Name`; the site makes links of that."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|attr|mod):`(~?)([\w.]+)`")


class Roles(griffe.Extension):
    """Replaces roles by links, which are plain text where the object has no place on the site."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of ``obj``."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(lambda role: _link(obj, role), obj.docstring.value)


def _link(obj: griffe.Object, role: re.Match[str]) -> str:
    is_short, name = role.groups()
    try:
        target = obj.resolve(name)
    except griffe.NameResolutionError:
        target = name
    shown = name.rpartition(".")[2] if is_short else name
    return f'<autoref identifier="{target}" optional><code>{shown}</code></autoref>'
