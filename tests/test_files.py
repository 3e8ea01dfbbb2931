"""Outputs that are no plain files are written into, never replaced."""

import io
import json
import os
import stat
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scripts import ROOT, TRAIN_MLP, command
from test_driver import InstantWorkers, run

from command_line.files import require_writable, write_whole
from training.errors import UserError
from visualizations.figures import save
from visualizations.results import load_results

GENERATOR = ROOT / "dataset" / "synthetic_generator.py"
GENERATE = ("--num-sequences", "3", "--vocab-size", "4", "--seq-len", "2")
TRAIN = ("--params", "1000", "--layers", "0", "--num-sequences", "2", "--json")


@pytest.fixture(autouse=True)
def the_null_device_survives():
    """No test may go near the real one, and none did."""
    yield
    assert Path(os.devnull).is_char_device()


def shell(line, tmp_path, **environment):
    """Run a line of shell in ``tmp_path`` in which $generate and $train are commands."""
    commands = {
        "generate": " ".join(command(GENERATOR, *GENERATE)),
        "train": " ".join(command(TRAIN_MLP, *TRAIN)),
    }
    return subprocess.run(
        ["bash", "-c", line],
        cwd=tmp_path,
        env={**os.environ, **commands, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture(scope="module")
def csv_text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    assert shell("$generate --save m.csv", folder).returncode == 0
    return (folder / "m.csv").read_text()


SAID = "wrote 3 mappings to {}\n"


@pytest.mark.parametrize("line", ["{0}", "{0} | cat", "{0} > out; cat out", "{0} >> out; cat out"])
@pytest.mark.parametrize("device", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_by_name(tmp_path, csv_text, line, device):
    (tmp_path / "m.csv").symlink_to(device)
    (tmp_path / "out").write_text("before\n")
    kept = "before\n" if ">>" in line else ""
    ended = shell(line.format("$generate --save m.csv"), tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == kept + csv_text + SAID.format("m.csv")
    assert (tmp_path / "m.csv").is_symlink()


def test_standard_error_by_name(tmp_path, csv_text):
    (tmp_path / "m.csv").symlink_to("/dev/stderr")
    ended = shell("echo first >&2; $generate --save m.csv", tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "first\n" + csv_text)
    ended = shell("$generate --save m.csv 2> err; cat err", tmp_path)
    assert ended.stdout == SAID.format("m.csv") + csv_text


def test_a_descriptor_that_the_shell_opened(tmp_path, csv_text):
    (tmp_path / "m.csv").symlink_to("/dev/fd/7")
    ended = shell("(echo a >&7; $generate --save m.csv; echo z >&7) 7> out", tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "out").read_text() == f"a\n{csv_text}z\n"


@pytest.mark.parametrize("line", ["$generate --save m.csv", "$generate --save m.csv 7< m.csv"])
def test_a_descriptor_that_is_not_open_for_writing(tmp_path, line):
    (tmp_path / "m.csv").symlink_to("/dev/fd/7")
    ended = shell(line.replace("< m.csv", "< /dev/zero"), tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "synthetic_generator.py: error: cannot write m.csv\n"


def test_a_reader_that_has_left(tmp_path):
    (tmp_path / "m.csv").symlink_to("/dev/stdout")
    ended = shell("set -o pipefail; $generate --save m.csv | true", tmp_path)
    assert ended.returncode in (0, 1)  # 0 if it was faster
    assert ended.stderr == ""


def test_a_training_script_writes_into_devices_pipes_and_links(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "weights").symlink_to("real.pt")  # dangling
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    ended = shell("$train --history pipe --save weights", tmp_path)
    reader.join(10)
    assert ended.returncode == 0, ended.stderr
    assert read[0].startswith("epoch,loss,accuracy,learning_rate\n1,")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert (tmp_path / "weights").is_symlink()
    assert torch.load(tmp_path / "real.pt")
    (tmp_path / "full").symlink_to("/dev/full")
    ended = shell("$train --save full --history /dev/stdout", tmp_path)
    assert ended.returncode == 2
    *history, summary = ended.stdout.splitlines(keepends=True)
    assert "".join(history) == read[0]  # what cannot be saved does not take the rest with it
    assert json.loads(summary)["n"] == 2
    assert ended.stderr.splitlines()[-1] == (
        "train_mlp.py: error: cannot write full: No space left on device"
    )


def test_the_null_device_behind_a_link(tmp_path):
    (tmp_path / "m.csv").symlink_to(os.devnull)
    ended = shell("$generate --save m.csv", tmp_path)
    assert (ended.returncode, ended.stdout) == (0, SAID.format("m.csv"))
    assert (tmp_path / "m.csv").is_symlink()


# The function, with everything a path may be.


def fill(path, content=b"new"):
    write_whole(path, lambda file: file.write(content))


def test_links_stay_and_what_they_lead_to_is_replaced(tmp_path):
    (tmp_path / "deep").mkdir()
    target, link = tmp_path / "deep" / "target", tmp_path / "link"
    (tmp_path / "deep" / "second").symlink_to("target")
    link.symlink_to("deep/second")
    for _ in ("dangling", "not dangling"):
        fill(link)
        assert link.is_symlink() and (tmp_path / "deep" / "second").is_symlink()
        assert target.read_bytes() == b"new"
        assert not target.is_symlink()


def test_a_loop_of_links_and_a_missing_folder_are_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c").symlink_to("missing/c")
    for path in (*map(tmp_path.joinpath, "abc"), tmp_path / "missing" / "d", tmp_path):
        with pytest.raises(UserError, match="cannot write"):
            require_writable(path)
        with pytest.raises(UserError, match="cannot write"):
            fill(path)
    assert (tmp_path / "a").is_symlink() and (tmp_path / "b").is_symlink()


def test_permissions_of_a_file_that_is_replaced_stay(tmp_path):
    path = tmp_path / "private"
    path.touch(mode=0o600)
    fill(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_failed_writer_leaves_everything_as_it_was(tmp_path):
    def failing(file):
        file.write(b"half")
        raise OSError("no reason")

    path = tmp_path / ("n" * 255)
    path.write_bytes(b"old")
    fill(path)
    with pytest.raises(UserError, match="no reason"):
        write_whole(path, failing)
    assert path.read_bytes() == b"new"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="no reason"):
        write_whole(tmp_path / "pipe", failing)  # was not even opened, there is no reader
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may")
def test_devices_and_mount_points_as_root(tmp_path):
    null = tmp_path / "null"
    try:
        os.mknod(null, stat.S_IFCHR | 0o666, os.stat(os.devnull).st_rdev)
        fill(null)
    except (OSError, UserError):
        pytest.skip("devices are not allowed here")
    assert null.is_char_device()
    file, other = tmp_path / "file", tmp_path / "other"
    for path in (file, other):
        path.write_bytes(b"old, and longer")
    if subprocess.run(["mount", "--bind", str(other), str(file)]).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        fill(file)
        assert file.read_bytes() == other.read_bytes() == b"new"
    finally:
        subprocess.run(["umount", str(file)], check=True)
    assert sorted(tmp_path.iterdir()) == [file, null, other]


# Results and figures.


def test_results_and_figures_as_links_and_devices(tmp_path):
    (tmp_path / "mlp_results.csv").symlink_to("elsewhere.csv")
    run(tmp_path, InstantWorkers())
    assert (tmp_path / "mlp_results.csv").is_symlink()
    assert len(load_results(tmp_path)) == 18
    null = tmp_path / "null"
    null.mkdir()
    (null / "mlp_results.csv").symlink_to(os.devnull)
    run(null, InstantWorkers())
    assert load_results(null).empty  # like an empty file

    figure = Figure()
    figure.add_subplot().plot([1, 2])
    (tmp_path / "f.png").symlink_to("elsewhere.png")
    os.mkfifo(tmp_path / "f.pdf")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "f.pdf").read_bytes()))
    reader.start()
    save(figure, "f", tmp_path)
    reader.join(10)
    assert read[0].startswith(b"%PDF") and read[0].rstrip().endswith(b"%%EOF")
    assert (tmp_path / "f.png").is_symlink()
    assert (tmp_path / "elsewhere.png").read_bytes().startswith(b"\x89PNG")


def test_arrays_into_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "m.npz").symlink_to("pipe")
    ended = shell("cat pipe > got & $generate --save m.npz && wait", tmp_path)
    assert ended.returncode == 0, ended.stderr
    got = np.load(io.BytesIO((tmp_path / "got").read_bytes()))
    assert got["inputs"].shape == got["labels"].shape == (3, 2)


def test_results_that_are_a_pipe_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "mlp_results.csv")
    assert load_results(tmp_path).empty
