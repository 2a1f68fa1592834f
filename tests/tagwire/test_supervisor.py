"""The supervisor, with small programs that behave and misbehave on purpose."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tagwire import supervisor as supervisor_module
from tagwire.children import Program
from tagwire.supervisor import Supervisor
from tests.support.processes import CHECKOUT, clean_environment, wait_until

READY = "import os,signal,sys,time\nfrom links.notify import notify_ready\n"
SERVE = READY + "print('hello', flush=True)\nnotify_ready()\nsignal.pause()\n"
STUBBORN = READY + "signal.signal(signal.SIGTERM, lambda *_: None)\nnotify_ready()\nwhile True: time.sleep(1)\n"


def program(name: str, script: str, **more: bool) -> Program:
    return Program(name, (sys.executable, "-c", script), {"PYTHONPATH": str(CHECKOUT)}, **more)


class Run:
    """A supervisor at work in this test's loop."""

    def __init__(self, *programs: Program) -> None:
        self.lines: list[str] = []
        self.ready = asyncio.Event()
        self.supervisor = Supervisor(programs, lambda name, line: self.lines.append(f"{name}: {line}"), self.ready.set)
        self.task = asyncio.create_task(self.supervisor.run())

    async def until(self, condition: Callable[[], object], timeout_s: float = 20) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110  # it looks at what other tasks print and do
                await asyncio.sleep(0.01)

    async def end(self) -> int:
        self.supervisor.stop()
        return await asyncio.wait_for(self.task, 20)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_ready_is_told_once_all_serve_and_everything_ends() -> None:
    run = Run(program("a", SERVE), program("b", SERVE))
    await asyncio.wait_for(run.ready.wait(), 20)
    pids = list(run.supervisor.pids.values())
    assert len(pids) == 2
    assert {"a: hello", "b: hello"} <= set(run.lines)
    assert await run.end() == 0
    assert not any(map(alive, pids))


async def test_a_log_line_can_say_that_a_program_serves_and_small_talk_is_hidden() -> None:
    script = "import signal\nprint('[INF] serving now', flush=True)\nprint('[WRN] low', flush=True)\nsignal.pause()"
    talk = Program("broker", (sys.executable, "-c", script), ready_text="serving", hidden_text="[INF]")
    run = Run(talk)
    await asyncio.wait_for(run.ready.wait(), 20)
    await run.until(lambda: "broker: [WRN] low" in run.lines)
    assert not any("INF" in line for line in run.lines)
    await run.end()


async def test_a_program_that_dies_is_started_again_after_a_growing_delay() -> None:
    run = Run(program("a", READY + "notify_ready()\nsys.exit(3)"))
    await run.until(lambda: any("in 0.8 s" in line for line in run.lines))
    assert "tagwire: a ended (exit code 3); starting it again in 0.2 s" in run.lines
    assert "tagwire: a ended (exit code 3); starting it again in 0.4 s" in run.lines
    assert "tagwire: a serves again" in run.lines
    assert await run.end() == 0


async def test_killed_after_it_served_long_the_first_delay_is_the_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "STABLE_S", 0.0)
    run = Run(program("a", SERVE))
    for count in (1, 2, 3):
        await run.until(lambda count=count: run.lines.count("a: hello") == count)
        os.kill(run.supervisor.pids["a"], signal.SIGKILL)
        await run.until(lambda count=count: sum("(signal 9)" in line for line in run.lines) == count)
        assert not any("in 0.4 s" in line for line in run.lines)
    await run.end()


async def test_refused_settings_of_several_programs_end_everything_with_code_2() -> None:
    def refuse(text: str, after_s: float) -> str:
        return f"import sys, time\ntime.sleep({after_s})\nprint({text!r})\nsys.exit(2)"

    run = Run(program("good", SERVE), program("a", refuse("A_PORT: bad", 0)), program("b", refuse("B_PORT: bad", 0.3)))
    assert await asyncio.wait_for(run.task, 20) == 2
    assert run.supervisor.refusals == {"a": ("A_PORT: bad",), "b": ("B_PORT: bad",)}
    assert not run.supervisor.pids
    assert not run.ready.is_set()


async def test_code_2_of_a_program_that_served_before_is_no_reason_to_stop_the_others(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    run = Run(
        program("other", SERVE),
        program(
            "a", READY + f"p={str(mark)!r}\nif os.path.exists(p): sys.exit(2)\nopen(p,'w')\nnotify_ready()\nsys.exit(1)"
        ),
    )
    await run.until(lambda: any("exit code 2" in line for line in run.lines))
    assert not run.task.done()
    assert await run.end() == 0


async def test_one_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "STOP_S", 0.3)
    run = Run(program("a", STUBBORN))
    await asyncio.wait_for(run.ready.wait(), 20)
    pid = run.supervisor.pids["a"]
    assert await run.end() == 0
    assert "tagwire: a does not end: killed" in run.lines
    assert not alive(pid)


async def test_a_second_stop_hurries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "STOP_S", 60.0)
    run = Run(program("a", STUBBORN))
    await asyncio.wait_for(run.ready.wait(), 20)
    run.supervisor.stop()
    await asyncio.sleep(0.2)
    assert not run.task.done()
    assert await run.end() == 0


async def test_the_broker_ends_after_those_who_say_goodbye_to_it() -> None:
    def leave(after_s: float) -> str:
        return READY + (
            f"def bye(*_):\n time.sleep({after_s}); print('bye', flush=True); sys.exit()\n"
            "signal.signal(signal.SIGTERM, bye)\nnotify_ready()\nwhile True: time.sleep(1)\n"
        )

    run = Run(program("broker", leave(0), ends_last=True), program("a", leave(0.4)))
    await asyncio.wait_for(run.ready.wait(), 20)
    assert await run.end() == 0
    assert [line for line in run.lines if line.endswith("bye")] == ["a: bye", "broker: bye"]


async def test_a_program_that_cannot_be_run_is_reported_and_tried_again() -> None:
    run = Run(Program("a", ("/no/such/program",)))
    await run.until(lambda: any("starting it again" in line for line in run.lines))
    assert "/no/such/program" in "".join(run.lines)
    assert await run.end() == 0


async def test_lines_without_end_do_not_fill_the_memory() -> None:
    script = READY + "sys.stdout.write('x' * 1_000_000)\nsys.stdout.flush()\nnotify_ready()\nsignal.pause()"
    run = Run(program("a", script))
    await asyncio.wait_for(run.ready.wait(), 20)
    await run.until(lambda: sum(map(len, run.lines)) > 900_000)
    assert max(map(len, run.lines)) < 200_000
    await run.end()


def test_children_die_with_a_supervisor_that_is_killed() -> None:
    script = (
        "import asyncio, sys\n"
        "from tagwire.supervisor import Supervisor\nfrom tagwire.children import Program\n"
        f"p = Program('a', (sys.executable, '-c', {SERVE!r}))\n"
        "async def main():\n"
        "    s = Supervisor([p], lambda *_: None, lambda: print(s.pids['a'], flush=True))\n"
        "    await s.run()\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], env=clean_environment(), stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not alive(child), 5, "the child's end")
