"""The ready queue: whatever the graph, machine and failures, each stage starts once, when there is room for it."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.dvc.graph import Plan
from orchestration.executors.executor import refuse_unreachable_server
from orchestration.resources import Machine, Resources, visible_gpus
from orchestration.scheduler import run_schedule
from runtime.errors import UserError


class Future:
    """Ends when its `end` is called."""

    def __init__(self) -> None:
        self.called = threading.Event()

    def add_done_callback(self, function) -> None:
        self.function = function
        self.called.set()

    def end(self) -> None:
        self.called.wait()
        self.function(self)


@st.composite
def runs(draw):
    """Draw a plan, in which a stage needs some of those before it, a machine, needs, the stages that fail, and of each
    end which of the running stages it is, counted round and round."""
    names = [f"stage{number}" for number in range(draw(st.integers(1, 12)))]
    above = {name: names[:place] for place, name in enumerate(names)}
    needed = {name: sorted(draw(st.sets(st.sampled_from(few)))) if few else [] for name, few in above.items()}
    plan = Plan(names, needed, set(names))
    gpus = tuple(str(number) for number in range(draw(st.integers(0, 2))))
    machine = Machine(draw(st.integers(1, 4)), gpus, draw(st.integers(1, 4)))
    resources = {name: Resources(draw(st.integers(1, 6)), draw(st.booleans())) for name in names}
    ends = draw(st.lists(st.integers(0, 11), min_size=len(names), max_size=len(names)))
    return plan, machine, resources, draw(st.sets(st.sampled_from(names))), ends


@given(runs())
def test_every_stage_starts_once_when_it_may_and_where_there_is_room(run):
    plan, machine, resources, failing, ends = run
    started, running, endings = {}, {}, {}
    changed = threading.Condition()

    def start(chosen):
        with changed:
            assert chosen.stage not in started
            assert set(plan.needs[chosen.stage]) <= set(endings)
            bad = {need for need in plan.needs[chosen.stage] if endings[need] != "ran"}
            assert set(chosen.blocked_by) == bad
            started[chosen.stage] = chosen
            running[chosen.stage] = future = Future()
            assert len(running) <= machine.jobs
            assert sum(min(resources[stage].threads, machine.threads) for stage in running) <= machine.threads
            gpus = [started[stage].gpu for stage in running if started[stage].gpu is not None]
            assert len(gpus) == len(set(gpus))
            assert set(gpus) <= set(machine.gpus)
            if machine.gpus and resources[chosen.stage].gpu and not chosen.blocked_by:
                assert chosen.gpu is not None
            changed.notify()
        return future

    def ending(stage, future):
        if started[stage].blocked_by:
            return "not run"
        return "failed" if stage in failing else "ran"

    def end_some() -> None:
        for number in ends:
            with changed:
                changed.wait_for(lambda: running)
                stage = sorted(running)[number % len(running)]
                future = running.pop(stage)
                endings[stage] = ending(stage, future)
            future.end()

    ender = threading.Thread(target=end_some, daemon=True)
    ender.start()
    result = run_schedule(plan, machine, resources, start, ending)
    assert set(started) == set(plan.order)
    below_failure = {name for name in plan.order if plan.ancestors(name) & failing}
    assert {name for name, end in result.items() if end == "not run"} == below_failure
    assert {name for name, end in result.items() if end == "failed"} == failing - below_failure


def test_a_stage_that_needs_nothing_more_does_not_wait_for_its_elders():
    plan = Plan(["slow", "quick", "after quick"], {"slow": [], "quick": [], "after quick": ["quick"]}, set())
    futures, order = {}, []

    def start(chosen):
        order.append(chosen.stage)
        futures[chosen.stage] = Future()
        return futures[chosen.stage]

    resources = {name: Resources(1, False) for name in plan.order}
    runner = threading.Thread(
        target=run_schedule, args=(plan, Machine(2, (), 2), resources, start, lambda *_: "ran"), daemon=True
    )
    runner.start()
    for stage in ("quick", "after quick", "slow"):
        while stage not in futures:
            pass
        futures[stage].end()
    runner.join()
    assert order == ["slow", "quick", "after quick"]


@pytest.mark.parametrize(
    ("chosen", "gpus"),
    [("", ()), ("-1", ()), ("1", ("1",)), ("0, 2", ("0", "2")), ("0,-1,2", ("0",)), ("GPU-8a,", ("GPU-8a",))],
)
def test_the_gpus_are_those_that_cuda_would_see(monkeypatch, chosen, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == gpus


def test_gpus_are_counted_as_nvidia_smi_lists_them(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)'\necho '  MIG 1g.5gb Device 0: (UUID: MIG-1)'\necho 'GPU 1: A'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert visible_gpus() == ("0", "1")


def test_workers_elsewhere_need_a_server_that_they_reach():
    with pytest.raises(UserError, match="set PREFECT_API_URL to a server that they reach"):
        refuse_unreachable_server("tcp://10.0.0.7:8786", "http://127.0.0.1:4200/api")
    refuse_unreachable_server("tcp://10.0.0.7:8786", "http://10.0.0.1:4200/api")
    refuse_unreachable_server("tcp://localhost:8786", "http://127.0.0.1:4200/api")
