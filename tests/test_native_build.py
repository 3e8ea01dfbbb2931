"""Building the compiled library: caching, races, and every way it can fail."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripts import TRAIN_MLP, run_script

from training.native import build
from training.native.libraries import Library

pytestmark = pytest.mark.skipif(build.find_compiler() is None, reason="no C++ compiler")

ROOT = Path(__file__).parent.parent
INSTALLED = sorted(set(build.LIBRARIES) - set(build.ONLY_FOR_TESTS))
TINY = 'extern "C" int answer() { return 42; }\n'
# For a process of its own, what the fixture below does here.
PREPARED = """
import pathlib, sys
from training.native import build
from training.native.libraries import Library
build.SOURCES = pathlib.Path({sources!r})
build.LIBRARIES = {{'tiny': Library(('tiny',))}}
"""


@pytest.fixture(autouse=True)
def sources(tmp_path, monkeypatch):
    """A tiny library in place of the real one, and an empty cache."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "tiny.cpp").write_text(TINY)
    monkeypatch.setattr(build, "SOURCES", folder)
    (folder / "broken.cpp").write_text("int f() { return nothing; }\n")
    libraries = {name: Library((name,)) for name in ("tiny", "broken")}
    monkeypatch.setattr(build, "LIBRARIES", libraries)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    forget()
    yield folder
    forget()


def forget():
    """What a new process knows: nothing."""
    build._loaded.clear()
    build._end_all()


def built():
    return sorted(path.name for path in build.cache_folder().glob("*"))


def assert_unavailable(*words):
    assert build.load_library("tiny") is None
    reason = build.why_unavailable("tiny")
    assert all(word in reason for word in words), reason
    assert "\n" not in reason


def test_build_and_load():
    assert build.load_library("tiny").answer() == 42
    assert build.why_unavailable("tiny") is None
    assert len(built()) == 1


def test_a_cache_hit_does_not_compile(monkeypatch):
    build.load_library("tiny")
    forget()
    monkeypatch.setattr(build, "_Compilation", None)
    assert build.load_library("tiny").answer() == 42


def test_changed_sources_and_flags_make_another_library(sources, monkeypatch):
    build.load_library("tiny")
    (sources / "tiny.cpp").write_text(TINY.replace("42", "43"))
    forget()
    assert build.load_library("tiny").answer() == 43
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DOTHER"))
    forget()
    assert build.load_library("tiny").answer() == 43
    assert len(built()) == 3


def test_two_processes_may_build_at_once(sources):
    program = (
        PREPARED.format(sources=str(sources))
        + "sys.exit(build.load_library('tiny').answer() != 42)"
    )
    running = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    assert len(built()) == 1


def test_installing_compiles_for_every_model(tmp_path):
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path / "lib")]
    subprocess.run(command, cwd=ROOT, check=True)
    assert [name.split("-")[0] for name in built()] == INSTALLED


def test_the_compiler_can_be_switched_off(monkeypatch):
    monkeypatch.setenv(build.NO_COMPILER_VARIABLE, "1")
    assert_unavailable(build.NO_COMPILER_VARIABLE)


def test_no_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert_unavailable("no C++ compiler")


def test_a_failing_compilation_leaves_nothing_behind(sources):
    (sources / "tiny.cpp").write_text("int f() { return nothing; }\n")
    assert_unavailable("compiling failed", "tiny.cpp")
    assert built() == []


def test_an_unusable_cache_folder(tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert_unavailable("cannot be built or loaded")


@pytest.mark.parametrize("kept", [0, 100, 5000, -1])
def test_a_library_that_was_cut_short_is_replaced(kept):
    build.load_library("tiny")
    (library,) = build.cache_folder().glob("*.so")
    whole = library.read_bytes()
    # A new file: the old one is loaded, and a process ends when such a file shrinks.
    library.unlink()
    library.write_bytes(whole[:kept])
    forget()
    assert build.load_library("tiny").answer() == 42
    assert len(built()) == 1


def test_whole_files_that_cannot_be_loaded_are_replaced():
    build.load_library("tiny")
    (library,) = build.cache_folder().glob("*.so")
    stem = library.stem.rpartition("-")[0]
    for content in (b"no library", b"neither"):
        library.with_name(f"{stem}-{build._digest(content)}.so").write_bytes(content)
    library.unlink()
    forget()
    assert build.load_library("tiny").answer() == 42
    assert built() == [library.name]


def test_a_compiler_that_ended_long_ago_is_not_too_slow(monkeypatch):
    monkeypatch.setattr(build, "COMPILE_SECONDS", 0)
    build.start_compiling(["tiny"])
    time.sleep(2)
    assert build.load_library("tiny").answer() == 42


def slow_compiler(folder, seconds):
    """A compiler that takes its time; its file `started` appears when it is asked to compile."""
    compiler = folder / "slow-c++"
    compiler.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exit 0\n'
        f"echo $$ > {folder}/number; mv {folder}/number {folder}/started\n"
        f'sleep {seconds}; exec c++ "$@"\n'
    )
    compiler.chmod(0o755)
    return str(compiler)


def test_compiling_can_start_before_it_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", slow_compiler(tmp_path, 2))
    start = time.monotonic()
    build.start_compiling(["tiny"])
    build.start_compiling(["tiny"])
    assert time.monotonic() - start < 1
    assert build.load_library("tiny").answer() == 42
    assert time.monotonic() - start > 2
    assert len(built()) == 1


def test_starting_says_nothing_that_loading_would_not(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    build.start_compiling(["tiny"])
    assert_unavailable("cannot be built or loaded")


@pytest.mark.parametrize("ending", ["sys.exit(3)", "raise KeyboardInterrupt"])
def test_a_compilation_nobody_waited_for_ends_with_the_process(
    ending, sources, tmp_path, monkeypatch
):
    monkeypatch.setenv("CXX", slow_compiler(tmp_path, 60))
    program = (
        PREPARED.format(sources=str(sources))
        + "build.start_compiling(['tiny'])\n"
        + f"while not pathlib.Path({str(tmp_path / 'started')!r}).exists(): pass\n{ending}"
    )
    start = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert ended.returncode != 0
    assert time.monotonic() - start < 30
    assert is_gone(int((tmp_path / "started").read_text()))
    assert built() == []


def test_what_is_compiled_when_the_process_ends_is_kept(sources):
    program = (
        PREPARED.format(sources=str(sources))
        + "build.start_compiling(['tiny'])\nimport time\ntime.sleep(3)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert [name.split("-")[0] for name in built()] == ["tiny"]


def test_one_failure_ends_what_else_is_being_compiled(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", slow_compiler(tmp_path, 1))
    assert not build.load_libraries(["broken", "tiny"])
    assert built() == [] and build._compiling == {}
    monkeypatch.setattr(build, "_Compilation", None)
    assert not build.load_libraries(["broken", "tiny"])  # without another attempt
    assert "broken.cpp" in build.why_unavailable("broken")


def test_leftovers_of_killed_processes_are_removed():
    for name, age in (("build-old", 10**5), ("build-new", 10)):
        folder = build.cache_folder() / name
        folder.mkdir(parents=True)
        (folder / "library.cpp").touch()
        os.utime(folder, (time.time() - age,) * 2)
    build.load_library("tiny")
    assert [name for name in built() if name.startswith("build-")] == ["build-new"]


def test_no_more_compilers_than_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(build.os, "cpu_count", lambda: 1)
    monkeypatch.setenv("CXX", slow_compiler(tmp_path, 1))
    build.start_compiling(["tiny", "broken"])
    assert list(build._compiling) == ["tiny"]
    assert build.load_library("tiny").answer() == 42


@pytest.mark.parametrize(
    "script, flags",
    [
        ("mlp_experiments.train_mlp", ["--params", "10000"]),
        ("transformer_experiments.train_transformer", ["--params", "32000"]),
        ("threshold_search.binary_search", ["--model", "mlp", "--params", "10000"]),
    ],
)
def test_scripts_ask_for_the_compiler_before_they_import_torch(script, flags):
    program = (
        f"import sys, {script} as script\n"
        "import training.native.build as build\n"
        "def started(name): sys.exit(3 + ('torch' in sys.modules))\n"
        "build._cached_or_started = started\n"
        f"sys.argv[1:] = {flags}\nscript.main()"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 3


def test_bad_input_while_the_compiler_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", slow_compiler(tmp_path, 60))
    start = time.monotonic()
    ended = run_script(TRAIN_MLP, "--params", 10000, "--history", tmp_path, cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert time.monotonic() - start < 30
    assert built() == []


def test_a_user_without_a_home_folder(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(build.Path, "home", no_home)
    assert_unavailable("cannot be built or loaded", "home directory")


def test_the_switch_is_off_at_0(monkeypatch):
    monkeypatch.setenv(build.NO_COMPILER_VARIABLE, "0")
    assert build.load_library("tiny").answer() == 42
    forget()
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert_unavailable("no C++ compiler")


def test_a_compiler_that_hangs_is_stopped_with_its_children(tmp_path, monkeypatch):
    child = tmp_path / "child"
    compiler = tmp_path / "slow-c++"
    compiler.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exit 0\nsleep 60 & echo $! > {child}; wait\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(build, "COMPILE_SECONDS", 1)
    start = time.monotonic()
    assert_unavailable("too long")
    assert time.monotonic() - start < 30
    assert built() == []
    assert is_gone(int(child.read_text()))


def is_gone(process_id):
    """Whether a killed process ends within a few seconds; one nobody reaped counts as gone."""
    for _ in range(50):
        try:
            os.kill(process_id, 0)
        except ProcessLookupError:
            return True
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(process_id)], capture_output=True, text=True
        )
        if state.stdout.strip().startswith("Z"):
            return True
        time.sleep(0.1)
    return False
