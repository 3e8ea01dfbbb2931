"""Build the compiled engine with the project; everything else is in pyproject.toml.

Without a compiler the installation succeeds all the same, and jobs say what they do instead.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent
FOLDER = Path("engines", "native")


class BuildEngine(build_ext):
    """The engine is a plain shared library, not a Python module, so it has a build of its own."""

    def run(self) -> None:
        """Run the command."""
        sys.path.insert(0, str(HERE))
        from engines.native.build import build_into

        folder = (HERE if self.inplace else Path(self.build_lib)) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        if reason := build_into(folder):
            print(f"warning: the compiled engine was not built: {reason}", file=sys.stderr)

    def get_outputs(self) -> list[str]:
        """Nothing that must exist."""
        return []

    def get_output_mapping(self) -> dict[str, str]:
        """Nothing to link to: an editable installation has the engine in the sources."""
        return {}


# The extension is there to say that the built project is for one kind of machine.
setup(
    cmdclass={"build_ext": BuildEngine},
    ext_modules=[Extension("engines.native.engine", sources=[])],
)
