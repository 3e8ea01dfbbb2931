"""The lock of a results folder, where the file system knows flock and where it does not."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys

import pytest
from scripts import BINARY_SEARCH, ROOT, command, run_script

from threshold_search.log.folder_lock import FolderLock
from training.errors import UserError

CODES = ["ENOSYS", "ENOTSUP", "ENOLCK"]
# As sitecustomize.py on PYTHONPATH: every process, workers too, then meets such a file system.
NO_FLOCK = """
import errno, fcntl, os
def flock(descriptor, operation):
    raise OSError(errno.{0}, os.strerror(errno.{0}))
fcntl.flock = flock
"""
HOLDER = """
import sys
from pathlib import Path
from threshold_search.log.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
lock.release()
"""
WAITING = "; waiting for it to end"
is_root = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture(params=[None, "ENOSYS"])
def environment(request, tmp_path):
    """What a process needs to meet a file system that answers flock so; None: it knows flock."""
    path = str(ROOT)
    if request.param is not None:
        (tmp_path / "sitecustomize.py").write_text(NO_FLOCK.format(request.param))
        path = f"{tmp_path}{os.pathsep}{path}"
    return {**os.environ, "PYTHONPATH": path}


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "results"
    made.mkdir()
    return made


def start(script, environment, **options):
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(script, env=environment, text=True, **pipes, **options)


def contender(folder, environment):
    """Start a process that takes the lock, says so, and holds it until its input ends."""
    return start([sys.executable, "-c", HOLDER, str(folder)], environment)


def holder(folder, environment):
    process = contender(folder, environment)
    assert process.stdout.readline() == "held\n", process.communicate()
    return process


def assert_free(folder, environment):
    """A process takes the lock at once, and gives it back."""
    process = contender(folder, environment)
    assert process.communicate(timeout=60) == ("held\n", "")
    assert process.returncode == 0


def locks_of(folder):
    return [path.name for path in folder.glob("*.lock*")]


def test_a_second_process_waits_for_the_first_and_names_the_lock(folder, environment):
    first = holder(folder, environment)
    (lock,) = locks_of(folder)
    second = contender(folder, environment)
    line = second.stderr.readline()
    assert line.startswith(f"another search is using {folder}{WAITING}")
    assert str(folder / lock) in line
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(0.3)
    first.communicate("")
    assert second.communicate(timeout=60) == ("held\n", "")
    assert_free(folder, environment)


def test_a_lock_left_by_a_killed_process_does_not_block(folder, environment):
    first = holder(folder, environment)
    first.kill()
    first.communicate()
    assert locks_of(folder)
    assert_free(folder, environment)
    assert_free(folder, environment)


def test_a_copy_of_a_folder_in_use_does_not_block(folder, environment, tmp_path):
    first = holder(folder, environment)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert locks_of(copy) == locks_of(folder) != []
    assert_free(copy, environment)
    assert first.poll() is None
    first.communicate("")


def test_a_moved_folder_in_use_stays_locked(folder, environment, tmp_path):
    first = holder(folder, environment)
    moved = folder.rename(tmp_path / "moved")
    second = contender(moved, environment)
    assert WAITING in second.stderr.readline()
    first.communicate("")
    second.communicate(timeout=60)
    assert second.returncode == 0


def test_a_file_that_flock_left_is_no_marker(folder, environment):
    (folder / "results.lock").touch()
    assert_free(folder, environment)
    assert (folder / "results.lock").exists()


def test_a_lock_that_was_deleted_meanwhile(folder, environment):
    first = holder(folder, environment)
    for name in locks_of(folder):
        (folder / name).unlink()
    assert first.communicate("") == ("", "")
    assert first.returncode == 0


@pytest.mark.parametrize("code", CODES)
def test_whatever_a_file_system_answers(code, folder, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = FolderLock(folder)
    lock.acquire()
    assert locks_of(folder) == [f"results-{folder.stat().st_ino}.lock"]
    lock.release()
    assert locks_of(folder) == []


def test_a_search_that_trains_without_flock(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(NO_FLOCK.format("ENOSYS"))
    flags = ["--model", "mlp", "--params", "1000", "--layers", "0", "--max-size", "2"]
    flags += ["--repeats", "1", "--results-dir", "made"]
    ended = run_script(BINARY_SEARCH, *flags, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    names = {path.name for path in (tmp_path / "made").iterdir()}
    assert names == {"mlp_probes.csv", "mlp_results.csv", "runs.jsonl", "protocols.json"}


def test_ctrl_c_while_a_search_waits(folder, environment):
    first = holder(folder, environment)
    flags = ["--model", "mlp", "--params", "1000", "--results-dir", folder]
    second = start(
        command(BINARY_SEARCH, *flags),
        environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert WAITING in second.stderr.readline()
    second.send_signal(signal.SIGINT)
    _, stderr = second.communicate(timeout=60)
    assert second.returncode == 130
    assert "Traceback" not in stderr
    assert first.poll() is None
    first.communicate("")
    assert_free(folder, environment)


# Folders that cannot be locked: one line that names the lock file, not the folder.


def assert_refused(folder, name, code):
    with pytest.raises(UserError) as error:
        FolderLock(folder).acquire()
    assert str(error.value) == f"cannot write to {folder / name}: {os.strerror(code)}"


def test_a_folder_in_the_place_of_the_lock(folder):
    (folder / "results.lock").mkdir()
    assert_refused(folder, "results.lock", errno.EISDIR)


def test_a_folder_in_the_place_of_the_marker(folder, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOSYS, "")

    monkeypatch.setattr(fcntl, "flock", flock)
    marker = f"results-{folder.stat().st_ino}.lock"
    (folder / marker).mkdir()
    assert_refused(folder, marker, errno.EISDIR)
    assert locks_of(folder) == [marker]


@pytest.mark.skipif(is_root, reason="root may write anywhere")
def test_a_folder_without_permission(folder):
    folder.chmod(0o555)
    assert_refused(folder, "results.lock", errno.EACCES)


@pytest.mark.skipif(not is_root, reason="only root mounts")
def test_a_read_only_file_system(folder):
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        assert_refused(folder, "results.lock", errno.EROFS)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
