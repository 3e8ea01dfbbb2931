"""Files are written whole or stay as they were; what is no plain file is never replaced."""

import json
import os
import stat
import threading

import pytest
import torch
from scripts import GENERATOR, TRAIN_MLP, run_script
from test_driver import InstantWorkers, run

from command_line.files import require_writable, write_whole
from training.errors import UserError
from visualizations.results import load_results


def fill(path):
    write_whole(path, lambda file: file.write(b"new"))


def read_in_background(pipe):
    """Make a pipe; return a thread that reads it to its end, and a list for what it has read."""
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    return reader, read


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


def test_what_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "link").symlink_to("missing/c")
    for path in (tmp_path / "link", tmp_path / "missing" / "d", tmp_path):
        for write in (require_writable, fill):
            with pytest.raises(UserError, match="cannot write"):
                write(path)


def test_permissions_of_a_file_that_is_replaced_stay(tmp_path):
    path = tmp_path / "private"
    path.touch(mode=0o600)
    fill(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    umask = os.umask(0o027)
    fill(tmp_path / "new")
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_a_failed_writer_leaves_everything_as_it_was(tmp_path):
    def failing(file):
        file.write(b"half")
        raise OSError("no reason")

    path = tmp_path / ("n" * 255)
    path.write_bytes(b"old")
    os.mkfifo(tmp_path / "pipe")  # is not even opened: there is no reader
    for output in (path, tmp_path / "pipe"):
        with pytest.raises(UserError, match="no reason"):
            write_whole(output, failing)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    fill(path)
    assert path.read_bytes() == b"new"


def test_a_device_stays_a_device(tmp_path):
    """As root, who could replace it."""
    null, full = tmp_path / "null", tmp_path / "full"
    try:
        os.mknod(null, stat.S_IFCHR | 0o666, os.stat(os.devnull).st_rdev)
        fill(null)
    except (OSError, UserError):
        pytest.skip("devices are not allowed here")
    assert null.is_char_device()
    full.symlink_to("/dev/full")
    with pytest.raises(UserError, match="No space left on device"):
        fill(full)


def test_a_training_script_writes_into_pipes_and_links(tmp_path):
    reader, read = read_in_background(tmp_path / "pipe")
    (tmp_path / "weights").symlink_to("real.pt")  # dangling
    flags = ("--params", 1000, "--layers", 0, "--num-sequences", 2, "--json")
    ended = run_script(TRAIN_MLP, *flags, "--history", "pipe", "--save", "weights", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    reader.join(10)
    assert read[0].startswith(b"epoch,loss,accuracy,learning_rate\n1,")
    assert (tmp_path / "weights").is_symlink()
    assert torch.load(tmp_path / "real.pt")
    where = ("--save", "/dev/full", "--history", "h.csv")
    ended = run_script(TRAIN_MLP, *flags, *where, cwd=tmp_path)
    assert ended.returncode == 2
    assert (tmp_path / "h.csv").read_bytes() == read[0]  # it is not lost with the weights
    assert json.loads(ended.stdout)["n"] == 2
    assert ended.stderr.splitlines()[-1] == (
        "train_mlp.py: error: cannot write /dev/full: No space left on device"
    )


def test_standard_output_by_name(tmp_path):
    (tmp_path / "m.csv").symlink_to("/dev/stdout")
    ended = run_script(GENERATOR, "--num-sequences", 3, "--save", "m.csv", cwd=tmp_path)
    assert ended.stdout.startswith("input_0,") and ended.stdout.count("\n") == 5
    assert ended.stdout.endswith("wrote 3 examples to m.csv\n")


def test_results_as_a_link(tmp_path):
    (tmp_path / "mlp_results.csv").symlink_to("elsewhere.csv")
    run(tmp_path, InstantWorkers())
    assert (tmp_path / "mlp_results.csv").is_symlink()
    assert len(load_results(tmp_path)) == 18
