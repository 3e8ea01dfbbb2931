"""What every executor must do, asked of each of them: processes here, and Ray on a real cluster.

The Ray half runs where Ray is installed, on one cluster on the loopback interface.
"""

import dataclasses
import importlib.util
import time

import pytest
from faulty_engine import FaultyEngine, outcome_of, serve_with_little_memory
from scripts import results_without_seconds

from engines.choice import choose_engine
from mlp_experiments.mlp_utils import SPEC, MLPArchitecture, solve
from threshold_search.driver import drive
from threshold_search.executors import local as workers
from threshold_search.executors.local import Workers
from threshold_search.executors.ray_connection import options_of_every_driver
from threshold_search.executors.ray_workers import RayWorkers
from threshold_search.log.results_folder import ResultsFolder
from threshold_search.plan import searches
from training.errors import OutOfMemory, UserError
from training.probe import Probe

HAS_RAY = importlib.util.find_spec("ray") is not None
MLP = MLPArchitecture(4, 1)
PAPER = SPEC.protocol()
KIND = MLP, PAPER
ENOUGH_SECONDS = 300  # for whatever has to happen on a busy machine


def probe_of(n, repeat=0):
    return Probe(MLP, PAPER, 0, repeat, n)


@pytest.fixture(scope="module")
def cluster():
    """A cluster of one node, to which this process is connected, as a notebook may be."""
    if not HAS_RAY:
        pytest.skip("needs Ray")
    from fault_trials import started_cluster

    with started_cluster() as started:
        import ray

        ray.init(address=started.address, **options_of_every_driver())
        yield started
        ray.shutdown()


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def executor_of(request):
    """A function from engines, by architecture and protocol, to an executor of one worker."""
    if request.param == "local":
        return lambda engines, **options: Workers(1, engines, **options)
    cluster = request.getfixturevalue("cluster")
    return lambda engines, **options: RayWorkers(None, engines, address=cluster.address, **options)


@pytest.fixture
def faulty(tmp_path):
    """A function from a fault to an engine that has it."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    return lambda fault="", times=0, **more: FaultyEngine(
        folder=str(folder), fault=fault, times=times, **more
    )


def outcomes(executor, count, seconds=ENOUGH_SECONDS):
    """Wait for ``count`` probes; return what became of them."""
    found, until = [], time.monotonic() + seconds
    while len(found) < count:
        assert time.monotonic() < until, found
        found += executor.wait(1.0)
    return found


def wait_for_jobs(executor, engine, count):
    until = time.monotonic() + ENOUGH_SECONDS
    while len(jobs := engine.jobs()) < count or not all(jobs):
        assert time.monotonic() < until
        assert executor.wait(0.05) == []  # as the driver does all the time
    return jobs


def is_running(process):
    """Whether a process is there and no zombie."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_outcomes_are_those_of_this_process(executor_of):
    engine = choose_engine("fast", "cpu", *KIND)
    probes = [probe_of(n, repeat) for n in (2, 30) for repeat in (0, 1)]
    with executor_of({KIND: engine}) as executor:
        waiting, found = list(probes), {}
        while len(found) < len(probes):
            while waiting and executor.has_idle:
                executor.submit([waiting.pop()])
            found.update(executor.wait(1.0))
        assert executor.has_idle
    for probe in probes:
        [(expected, _)] = engine.train([probe])
        assert dataclasses.replace(found[probe], seconds=expected.seconds) == expected


def test_the_job_of_a_dead_worker_starts_again(executor_of, faulty):
    engine = faulty("dies", 2)
    with executor_of({KIND: engine}) as executor:
        executor.submit([probe_of(3)])
        assert outcomes(executor, 1) == [(probe_of(3), outcome_of(probe_of(3)))]
        assert executor.wait(0.0) == [] and executor.has_idle
    assert [n for _, n in engine.jobs()] == [3, 3, 3]


def test_a_job_that_always_kills_its_worker_is_given_up(executor_of, faulty):
    engine = faulty("dies", 99)
    with executor_of({KIND: engine}) as executor:
        executor.submit([probe_of(3)])
        [(probe, error)] = outcomes(executor, 1)
        assert probe == probe_of(3) and isinstance(error, OutOfMemory)
        assert "a worker died 3 times training mlp 4x1 on 3 sequences" in str(error)
    assert len(engine.jobs()) == 3


def test_a_job_beyond_its_deadline_starts_again(executor_of, faulty):
    engine = faulty("hangs", 1)
    with executor_of({KIND: engine}, deadline=8.0) as executor:
        executor.submit([probe_of(3)])
        assert outcomes(executor, 1) == [(probe_of(3), outcome_of(probe_of(3)))]
    (first, _), (second, _) = engine.jobs()
    assert first != second


def test_close_ends_what_is_being_trained(executor_of, faulty):
    engine = faulty("hangs", 1)
    with executor_of({KIND: engine}) as executor:
        executor.submit([probe_of(3)])
        [(process, _)] = wait_for_jobs(executor, engine, 1)
        assert is_running(process)
    until = time.monotonic() + ENOUGH_SECONDS
    while is_running(process):
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("times", [2, 3])
def test_a_worker_without_memory_to_start_is_lost(times, faulty, tmp_path, monkeypatch):
    """It would answer every job so, where another one may find more memory."""
    folder = tmp_path / "too short"
    folder.mkdir()
    for number in range(times):
        (folder / str(number)).touch()
    monkeypatch.setenv("TOO_SHORT", str(folder))
    monkeypatch.setattr(workers, "serve", serve_with_little_memory)
    with Workers(1, {KIND: faulty()}) as executor:
        executor.submit([probe_of(3)])
        [(_, found)] = outcomes(executor, 1)
        if times < 3:
            assert found == outcome_of(probe_of(3))
        else:
            assert "3 times" in str(found) and "(not enough memory to import torch)" in str(found)


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [("refuses", UserError, "not this one"), ("is a mistake", RuntimeError, "ZeroDivisionError")],
)
def test_what_a_job_raises(executor_of, faulty, fault, error, words):
    with executor_of({KIND: faulty(fault, 1)}) as executor:
        executor.submit([probe_of(3)])
        with pytest.raises(error, match=words):
            outcomes(executor, 1)


def test_a_job_without_memory_has_no_outcome(executor_of, faulty):
    with executor_of({KIND: faulty("has no memory", 1)}) as executor:
        executor.submit([probe_of(3)])
        [(_, error)] = outcomes(executor, 1)
        assert isinstance(error, OutOfMemory) and "not enough memory" in str(error)


def test_a_size_that_kills_is_the_one_that_is_given_up(executor_of, faulty, tmp_path):
    wanted = searches([(MLP, PAPER, 1)], repeats=1)
    folder = ResultsFolder(tmp_path / "results", [SPEC])
    with folder as results, executor_of({KIND: faulty(deadly=16)}) as executor:
        [state] = drive(wanted, results, executor)
        logged = [probe_of(n) for n in (2, 4, 8, 16) if results.logs["mlp"].get(probe_of(n))]
    assert logged == [probe_of(n) for n in (2, 4, 8)]
    assert "on 16 sequences" in state.failure


def quick_search(executor_of, folder):
    """Run a search of some hundred probes of milliseconds to a second; return its CSV."""
    architectures = [solve(10_000, depth) for depth in (2, 3)]
    wanted = searches([(a, PAPER, 10_000) for a in architectures], repeats=3)
    engines = {(a, PAPER): choose_engine("fast", "cpu", a, PAPER) for a in architectures}
    with ResultsFolder(folder, [SPEC]) as results, executor_of(engines) as executor:
        drive(wanted, results, executor)
    return results_without_seconds(folder / "mlp_results.csv")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The results CSV of the local executor."""
    return quick_search(lambda engines: Workers(2, engines), tmp_path_factory.mktemp("local"))


@pytest.mark.ray
@pytest.mark.parametrize("rows_before", [1, 20])
def test_a_node_dies_in_mid_search(cluster, expected, tmp_path, rows_before):
    """No probe is lost but those in flight: the rows that were there stay, none is there twice."""
    from fault_trials import add_node

    node, log = add_node(cluster), tmp_path / "mlp_probes.csv"
    before = []

    class DyingNode(RayWorkers):
        def wait(self, timeout):
            ended = super().wait(timeout)
            if not before and log.exists() and log.read_text().count("\n") > rows_before:
                assert len(self.nodes()) >= 2  # one that is dead may still be listed
                before.extend(log.read_text().splitlines())
                cluster.remove_node(node, allow_graceful=False)
            return ended

    found = quick_search(lambda e: DyingNode(None, e, address=cluster.address), tmp_path)
    assert found == expected
    rows = log.read_text().splitlines()
    assert before and rows[: len(before)] == before
    up_to_n = rows[0].split(",").index("n") + 1
    identities = [row.split(",")[:up_to_n] for row in rows]
    assert len({*map(tuple, identities)}) == len(rows)


@pytest.mark.ray
def test_a_node_with_another_engine_refuses(cluster, faulty):
    from fault_trials import add_node

    node = add_node(cluster, env_vars={"MEMORIZATION_NO_ENGINE": "1"})
    words = "^node 127.0.0.1 of the Ray cluster .* its bits could differ: no compiled engine$"
    until, engines = time.monotonic() + ENOUGH_SECONDS, {KIND: faulty(seconds=1.0)}
    try:
        with (
            RayWorkers(None, engines, address=cluster.address) as executor,
            pytest.raises(UserError, match=words),
        ):
            while time.monotonic() < until:
                if executor.has_idle:
                    executor.submit([probe_of(2)])
                executor.wait(0.1)
    finally:
        cluster.remove_node(node)
