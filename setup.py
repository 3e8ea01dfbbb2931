"""Compile the models' libraries at installation, so that no job has to wait for a compiler.

Everything else is in pyproject.toml. Without a compiler, or where a library cannot be cached, this
does nothing.
"""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildAndCompile(build_py):
    """Build the package, then fill the cache of compiled libraries."""

    def run(self) -> None:
        """Run the command."""
        super().run()
        sys.path.insert(0, str(Path(__file__).parent))
        from training.native.build import compile_for_models

        compile_for_models()


setup(cmdclass={"build_py": BuildAndCompile})
