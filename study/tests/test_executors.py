"""Every way to run jobs: one outcome a name, and nothing lost but what its own process took with it."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs_to_run import broken, calls, interrupted, ordinary, perilous, stranded, threads, warned
from thresher.errors import ConfigError
from thresher_study import clusters
from thresher_study.clusters import Ray, Slurm
from thresher_study.executors import ATTEMPTS, Executor, Here, Processes
from thresher_study.outcome import Outcome

TESTS = Path(__file__).parent
NAMES = ("a", "b", "wrong", "c", "d")
PERILS = ("always", "a", "once", "b", "c")


def needs(package: str) -> pytest.MarkDecorator:
    """Skip where an extra is not installed."""
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


needs_submitit, needs_ray = needs("submitit"), needs("ray")
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where jobs leave their lines."""
    made = tmp_path / "jobs"
    made.mkdir()
    return made


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes elsewhere find these tests and Thresher as this one does."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(TESTS), *sys.path])))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """submitit waits for results of killed jobs, which never come, as long as a slow network drive may take."""
    from submitit.core.core import Job

    monkeypatch.setattr(Job, "_results_timeout_s", 1)
    monkeypatch.setattr(clusters, "POLL", 0.1)


SLURM = {
    # Runs one job, or every job of an array at once, and notes what becomes of it.
    "sbatch": """
        last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' $1)
        for i in $(seq 0 ${last:-0}); do
            export SLURM_JOB_ID=$$
            [ -z "$last" ] || export SLURM_ARRAY_JOB_ID=$$ SLURM_ARRAY_TASK_ID=$i SLURM_JOB_ID=$$_$i
            echo RUNNING > $STATES/$SLURM_JOB_ID
            (
                setsid bash $1 &
                echo $! > $STATES/$SLURM_JOB_ID.group
                if wait $!; then state=COMPLETED; else state=NODE_FAIL; fi
                echo $state > $STATES/$SLURM_JOB_ID.new
                mv $STATES/$SLURM_JOB_ID.new $STATES/$SLURM_JOB_ID
            ) > /dev/null 2>&1 &
        done
        echo "Submitted batch job $$"
    """,
    "srun": 'while [ "$1" != -u ]; do shift; done; exec $PYTHON "$@"',
    "sacct": "echo 'JobID|State|NodeList'; cd $STATES; for job in *; do echo \"$job|$(cat $job)|here\"; done",
    "scancel": "kill -KILL -- -$(cat $STATES/$1.group)",
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, impatient: None) -> None:
    """Slurm's commands, as far as submitit uses them."""
    (tmp_path / "states").mkdir()
    (tmp_path / "bin").mkdir()
    for name, script in SLURM.items():
        command = tmp_path / "bin" / name
        command.write_text(f"#!/bin/bash\n{script}\n")
        command.chmod(0o755)
    monkeypatch.setenv("STATES", str(tmp_path / "states"))
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A Ray cluster of a head that runs nothing, with one node of two workers."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=2)
    yield cluster
    cluster.shutdown()


@pytest.fixture(
    params=[
        "processes",
        pytest.param("submitit", marks=needs_submitit),
        pytest.param("slurm", marks=needs_submitit),
        pytest.param("ray", marks=needs_ray),
    ]
)
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Executor:
    """Every executor that has processes to lose."""
    if request.param == "processes":
        return Processes(2)
    if request.param == "ray":
        return Ray(request.getfixturevalue("nodes").address, {"num_cpus": 1})
    request.getfixturevalue("slurm" if request.param == "slurm" else "impatient")
    return Slurm(tmp_path / "submitit", "slurm" if request.param == "slurm" else "local")


def check_ordinary(executor: Executor, folder: Path) -> None:
    """Every job has run once and told what it had to tell."""
    found = list(executor.run(NAMES, partial(ordinary, folder)))
    assert sorted(found, key=lambda outcome: NAMES.index(outcome.name)) == [
        Outcome(name, 1.5, "no such model." if name == "wrong" else None) for name in NAMES
    ]
    assert calls(folder) == dict.fromkeys(NAMES, 1)


def test_one_outcome_a_name_here(folder: Path) -> None:
    check_ordinary(Here(), folder)


@pytest.mark.slow
@needs_ray
def test_a_ray_cluster_of_its_own(folder: Path) -> None:
    """Comes before the tests that share one."""
    import ray

    with pytest.raises(ConfigError, match="executor ray: Invalid address format: nowhere"):
        list(Ray("nowhere").run(NAMES, partial(ordinary, folder)))
    check_ordinary(Ray(), folder)
    assert not ray.is_initialized()


def test_one_outcome_a_name(elsewhere: Executor, folder: Path) -> None:
    check_ordinary(elsewhere, folder)
    assert list(elsewhere.run((), partial(ordinary, folder))) == []


def test_a_killed_process_takes_nothing_but_its_own_job(elsewhere: Executor, folder: Path) -> None:
    found = list(elsewhere.run(PERILS, partial(perilous, folder)))
    assert sorted(outcome.name for outcome in found) == sorted(PERILS)
    errors = {outcome.name: outcome.error for outcome in found}
    assert "was killed 3 times" in str(errors.pop("always"))
    assert errors == dict.fromkeys(("a", "once", "b", "c"))
    assert calls(folder) == {"always": ATTEMPTS, "once": 2, "a": 1, "b": 1, "c": 1}


def test_processes_share_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert list(Processes(2).run(["a"], threads)) == [Outcome("a", 0.0, "3")]
    assert list(Processes(9).run(["torch"], threads)) == [Outcome("torch", 1.0, "1")]
    assert os.environ["OMP_NUM_THREADS"] == "2"


def test_no_process_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 processes: name at least one"):
        Processes(0)


def test_processes_warn_in_plain_text(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(Processes(1).run(["[/b]"], warned)) == [Outcome("[/b]", 0.0, None)]
    assert "WARNING  [/b] \\x1b[31mred\\nerror: forged" in capfd.readouterr().err


def lives(process: int) -> bool:
    """Whether a process of this number still runs; what has ended but was not asked for does not."""
    state = Path(f"/proc/{process}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] not in "ZX"


def wait_until(true: Callable[[], bool]) -> None:
    """Look again and again, with much patience."""
    for _ in range(6000):
        if true():
            return
        time.sleep(0.05)
    pytest.fail("this never came true")


@needs_proc
@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_workers_end_with_the_process_that_started_them(told: signal.Signals, folder: Path) -> None:
    script = (
        "import signal; from functools import partial; from pathlib import Path\n"
        "from jobs_to_run import endless; from thresher_study.executors import Processes\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"if __name__ == '__main__': list(Processes(2).run(['a', 'b', 'c'], partial(endless, Path({str(folder)!r}))))"
    )
    (file := folder.parent / "study.py").write_text(script)
    with subprocess.Popen([sys.executable, str(file)], stderr=subprocess.DEVNULL) as study:
        wait_until(lambda: sum(calls(folder).values()) == 2)
        workers = [int(path.read_text()) for path in folder.glob("*")]
        assert all(map(lives, workers))
        study.send_signal(told)
        try:
            wait_until(lambda: study.poll() is not None)
        finally:
            study.kill()
    wait_until(lambda: not any(map(lives, workers)))
    assert calls(folder) == {"a": 1, "b": 1}


@needs_proc
def test_what_is_left_ends_when_nobody_asks_for_more(elsewhere: Executor, folder: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # not ignored, as it is behind a shell's "&"
    (folder / "a").write_text("called before\n")  # so that a ends, and b does not
    running = elsewhere.run(["a", "b"], partial(stranded, folder))
    assert next(running).name == "a"
    wait_until(lambda: calls(folder).get("b") == 1)
    worker = int((folder / "b").read_text())
    assert lives(worker)
    running.close()  # type: ignore[attr-defined]
    wait_until(lambda: not lives(worker))


@needs_submitit
def test_a_job_whose_time_is_up_goes_on(folder: Path, tmp_path: Path, impatient: None) -> None:
    local = Slurm(tmp_path / "submitit", "local", {"timeout_min": 1})
    assert list(local.run(["a"], partial(interrupted, folder))) == [Outcome("a", 0.0, None)]
    assert calls(folder) == {"a": 2}


@needs_submitit
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"queue": "gpu"}, "'queue' need to be prefixed"),
        ({"slurm_partitoin": "gpu"}, "Unknown argument 'partitoin'"),
        ({"timeout_min": "long"}, "expected type <class 'int'>"),
        ({"tasks_per_node": 2}, "tasks_per_node must be 1"),
    ],
)
def test_options_that_submitit_refuses(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        Slurm(tmp_path, "local", options)


@needs_submitit
def test_no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="srun"):
        Slurm(tmp_path, "slurm")


@needs_submitit
def test_a_cluster_that_takes_no_job(folder: Path, tmp_path: Path, slurm: None) -> None:
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/bash\necho 'sbatch: error: invalid partition' >&2; exit 1")
    with pytest.raises(ConfigError, match="took no job: sbatch: error: invalid partition"):
        list(Slurm(tmp_path / "submitit").run(NAMES, partial(ordinary, folder)))


@pytest.mark.slow
@needs_ray
def test_a_node_that_fails(nodes: Any, folder: Path) -> None:
    with ThreadPoolExecutor() as aside:
        found = aside.submit(lambda: list(Ray(nodes.address).run(["a"], partial(stranded, folder))))
        wait_until(lambda: "a" in calls(folder))
        [node] = nodes.worker_nodes
        nodes.remove_node(node, allow_graceful=False)
        nodes.add_node(num_cpus=2)
        assert found.result() == [Outcome("a", 1.5, None)]
    assert calls(folder) == {"a": 2}


@needs_submitit
def test_work_that_slurm_cannot_run(folder: Path, tmp_path: Path, impatient: None) -> None:
    [found] = Slurm(tmp_path / "submitit", "local").run(["a"], partial(broken, folder))
    [log] = (tmp_path / "submitit").glob("*.err")
    assert found == Outcome("a", 0.0, f"it could not be run; see {log}.")
    assert "ValueError: broken" in log.read_text()


@needs_ray
def test_work_that_ray_cannot_run_on_a_cluster_of_the_caller(nodes: Any, folder: Path) -> None:
    import ray

    ray.init(address=nodes.address, log_to_driver=False)
    assert list(Ray().run(["a"], partial(broken, folder))) == [Outcome("a", 0.0, "ValueError: broken")]
    assert ray.is_initialized()
    ray.shutdown()


@needs_ray
def test_a_job_larger_than_the_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    ended: list[bool] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0})
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append(True))
    with pytest.raises(ConfigError, match="num_gpus 1 is more than this machine has"):
        list(Ray(None, {"num_cpus": 4, "num_gpus": 1}).run(["a"], partial(ordinary, folder)))
    assert ended == [True]


@needs_ray
@pytest.mark.parametrize(
    ("options", "said"), [({"cpus": 1}, "Invalid option keyword cpus"), ({"num_cpus": "many"}, "num_cpus")]
)
def test_options_that_ray_refuses(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Ray(None, options)


@pytest.mark.parametrize(("make", "extra"), [(partial(Slurm, Path()), "slurm"), (Ray, "ray")])
def test_an_extra_that_is_missing(make: Callable[[], Any], extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=rf"pip install 'thresher-study\[{extra}\]'"):
        make()
