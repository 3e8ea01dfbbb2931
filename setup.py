"""Compile the models' libraries at installation, so that no job has to wait for a compiler.

Everything else is in pyproject.toml. Without a compiler, or where a library cannot be cached, this
does nothing.
"""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildAndCompile(build_py):
    """Build the package, then fill the cache of compiled libraries."""

    def run(self) -> None:
        """Run the command."""
        super().run()
        build = Path(__file__).parent / "training" / "native" / "build.py"
        runpy.run_path(str(build), run_name="__main__")


setup(cmdclass={"build_py": BuildAndCompile})
