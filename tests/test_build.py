"""The engine's build and its loading: every way in which there may be none, and what is said."""

import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import TRAIN_MLP, run_script

from engines.native import build, load
from engines.native.build import FAILURE, LIBRARY, OFF_VARIABLE

ROOT = Path(__file__).parent.parent
# Compiles to a library that says of itself what the engine says.
TINY = """
extern "C" const char* engine_source_hash() { return SOURCE_HASH; }
extern "C" int engine_cpu_has_instructions() { return %d; }
"""

needs_compiler = pytest.mark.skipif(
    not any(map(build.shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler"
)


@pytest.fixture(autouse=True)
def sources(tmp_path, monkeypatch):
    """A tiny engine in place of the real one, which would take long to build."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "tiny.cpp").write_text(TINY % 1)
    for module in (build, load):
        monkeypatch.setattr(module, "SOURCES", folder)
    for variable in ("CXX", OFF_VARIABLE, load.LIBRARY_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    forget()
    yield folder
    forget()


def forget():
    load.find_engine.cache_clear()


def reason(folder, *words):
    """Return why there is no engine, which must have been found out in one line."""
    forget()
    found = load.find_engine()
    assert isinstance(found, load.Unavailable)
    assert all(word in found.reason for word in words), found.reason
    assert "\n" not in found.reason + found.remedy
    return found


def test_the_real_engine_is_there_wherever_there_is_a_compiler(monkeypatch):
    """Without this one, a source that does not compile would merely skip all other tests."""
    monkeypatch.undo()
    forget()
    found = load.find_engine()
    if isinstance(found, load.Unavailable):
        try:
            build.find_compiler()
        except build.BuildError:
            pytest.skip("no C++ compiler")
        assert os.environ.get(OFF_VARIABLE), found.reason


@needs_compiler
def test_built_and_loaded(sources):
    assert build.build_into(sources) is None
    assert load.load_engine() is not None
    assert sorted(path.name for path in sources.iterdir()) == [*build.libraries(), "tiny.cpp"]


@needs_compiler
@pytest.mark.parametrize("has_wide_registers", [True, False])
def test_the_library_of_the_widest_registers_that_the_processor_has(sources, has_wide_registers):
    if len(build.libraries()) < 2:
        pytest.skip("one library for all processors of this kind")
    (sources / "tiny.cpp").write_text(
        f"#if defined(__AVX512F__)\n{TINY % has_wide_registers}#else\n{TINY % 1}#endif\n"
    )
    assert build.build_into(sources) is None
    found = load.find_engine()
    assert Path(found._name).name == build.libraries()[has_wide_registers]


def test_not_built(sources):
    found = reason(sources, "there is no compiled engine", "the installation has not built it")
    assert "build.py" in found.remedy


@needs_compiler
def test_a_failed_build_removes_the_older_library_and_leaves_its_reason(sources):
    build.build_into(sources)
    (sources / "tiny.cpp").write_text("int f() { return nothing; }\n")
    assert "compiling failed" in build.build_into(sources)
    assert sorted(path.name for path in sources.iterdir()) == [FAILURE, "tiny.cpp"]
    reason(sources, "compiling failed", "tiny.cpp", "error", "nothing")
    (sources / "tiny.cpp").write_text(TINY % 1)
    assert build.build_into(sources) is None
    assert not (sources / FAILURE).exists()


@needs_compiler
def test_a_library_older_than_its_sources_or_flags_is_not_used(sources, monkeypatch):
    build.build_into(sources)
    with (sources / "tiny.cpp").open("a") as file:
        file.write("// changed\n")
    os.utime(sources / LIBRARY)  # the time of a file says nothing
    found = reason(sources, "older than its sources")
    assert "build.py" in found.remedy
    build.build_into(sources)
    forget()
    assert load.load_engine() is not None
    (sources / "more.h").write_text("// a header belongs to them too\n")
    reason(sources, "older than its sources")
    (sources / "more.h").unlink()
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DOTHER"))
    reason(sources, "older than its sources")


@needs_compiler
def test_a_processor_without_the_instructions(sources):
    (sources / "tiny.cpp").write_text(TINY % 0)
    build.build_into(sources)
    assert "build" not in reason(sources, "lacks", "AVX2").remedy


def test_a_file_that_is_no_library(sources):
    (sources / LIBRARY).write_text(f"not a library, but {build.source_hash()}")
    reason(sources, "cannot be loaded")


@needs_compiler
def test_switched_off(sources, monkeypatch):
    build.build_into(sources)
    monkeypatch.setenv(OFF_VARIABLE, "1")
    reason(sources, OFF_VARIABLE)
    monkeypatch.setenv(OFF_VARIABLE, "0")
    forget()
    assert load.load_engine() is not None


@needs_compiler
def test_a_compiler_that_would_change_the_bits_is_overruled_or_refused(sources, monkeypatch):
    include = '#include "vector.h"\n'
    (sources / "vector.h").write_bytes((ROOT / "engines/native/vector.h").read_bytes())
    (sources / "tiny.cpp").write_text(include + TINY % 1)
    monkeypatch.setenv("CXX", "c++ -ffast-math")
    assert build.build_into(sources) is None
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-ffast-math"))
    assert "change the bits" in build.build_into(sources)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("PATH", "", "no C++ compiler was found"),
        ("CXX", "no-such-compiler -O1", "no program 'no-such-compiler', which CXX asks for"),
        (OFF_VARIABLE, "1", f"{OFF_VARIABLE} was set when the project was installed"),
    ],
)
def test_why_it_was_not_built_is_told_later(variable, value, words, sources, monkeypatch):
    monkeypatch.setenv(variable, value)
    build.build_into(sources)
    monkeypatch.delenv(variable)
    reason(sources, words)


def test_another_kind_of_processor(sources, monkeypatch):
    monkeypatch.setattr(build.platform, "machine", lambda: "riscv64")
    assert "not made for riscv64" in build.build_into(sources)


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@needs_compiler
def test_the_compiler_may_be_a_command_with_arguments(sources, tmp_path, monkeypatch):
    calls = tmp_path / "calls"
    wrapper = script(tmp_path / "ccache", f'echo "$1" >> {calls}; exec "$@"')
    monkeypatch.setenv("CXX", f"'{wrapper}' c++")
    assert build.build_into(sources) is None
    assert calls.read_text() == "c++\n" * len(build.libraries())


@pytest.mark.parametrize("compiler", ["false", "c++"])
def test_the_installation_succeeds_with_and_without_an_engine(compiler, tmp_path):
    pytest.importorskip("setuptools")
    # "Compiles" by copying this file: the real compilation is in what these tests run on.
    fake = script(
        tmp_path / "fake", f'for last; do :; done; exec cp {shlex.quote(__file__)} "$last"'
    )
    target = tmp_path / "lib"
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(target)]
    environment = {**os.environ, "CXX": str(fake) if compiler == "c++" else "false"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    built = [path.name for path in (target / "engines" / "native").iterdir()]
    assert sorted(built) == (list(build.libraries()) if compiler == "c++" else [FAILURE])
    assert ("was not built" in ended.stderr) == (compiler == "false")


def test_a_job_says_why_in_one_line_and_trains(tmp_path):
    (tmp_path / "engine.so").write_text("not a library")
    flags = ["--params", 10000, "--num-sequences", 4]
    variable = {load.LIBRARY_VARIABLE: str(tmp_path / "engine.so")}
    ended = run_script(TRAIN_MLP, *flags, cwd=tmp_path, **variable)
    assert ended.returncode == 0
    assert ended.stderr.count("\n") == 1
    for words in ("older than its sources", "build.py", "engine=stacked"):
        assert words in ended.stderr
