"""Keeps programs running: all started at once, each restarted when it dies, all ended in order."""

import asyncio
from collections.abc import Callable, Sequence
from enum import IntEnum

from links.environment import EXIT_CONFIG
from tagwire.children import Child, Program

STOP_S = 5.0
"""A program that is asked to end has this long before it is killed."""
STABLE_S = 3.0
"""A program that served this long and died is started again at once; one that dies sooner waits longer each time."""
FIRST_DELAY_S = 0.2
MAX_DELAY_S = 15.0
FAILING_S = 1.0
"""When one program refuses its settings: how long the others have to refuse theirs, and then to end."""
LATE_S = 10.0
"""A program that is not ready after this long is named once."""


class Stop(IntEnum):
    """How urgent the end is."""

    NO = 0
    ORDERLY = 1
    NOW = 2


class Supervisor:
    """Runs programs until `stop`. `say(name, line)` takes their log lines and ours (with the name `tagwire`).

    `on_ready` is called once, when all of them serve.
    """

    def __init__(
        self, programs: Sequence[Program], say: Callable[[str, str], None], on_ready: Callable[[], None]
    ) -> None:
        self._programs = programs
        self._say = say
        self._on_ready = on_ready
        self._children: dict[str, Child] = {}
        self._served: set[str] = set()
        self._refused: dict[str, tuple[str, ...]] = {}
        self._stop = Stop.NO
        self._changed = asyncio.Condition()
        self._wake = asyncio.Event()
        self._telling: asyncio.Task[None] | None = None

    @property
    def refusals(self) -> dict[str, tuple[str, ...]]:
        """The last words of each program that refused its settings (exit code 2 before it ever served)."""
        return self._refused

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of what runs now."""
        return {name: child.pid for name, child in self._children.items()}

    def stop(self) -> None:
        """End everything in order; asked a second time, at once."""
        self._stop = Stop.NOW if self._stop else Stop.ORDERLY
        self._wake.set()
        self._telling = asyncio.get_running_loop().create_task(self._tell(), name="stop")

    async def run(self) -> int:
        """Start everything, keep it running, end it. Returns the exit code: 2 when a program refused its settings."""
        async with asyncio.TaskGroup() as tasks:
            for program in self._programs:
                tasks.create_task(self._keep(program), name=program.name)
            late = tasks.create_task(self._name_the_late(), name="late programs")
            async with self._changed:
                await self._changed.wait_for(lambda: self._all_serve() or self._refused or self._stop)
            late.cancel()
            if self._all_serve() and not self._stop:
                self._on_ready()
            async with self._changed:
                await self._changed.wait_for(lambda: self._refused or self._stop)
            if self._refused:
                await self._wait(lambda: len(self._refused) + len(self._served) == len(self._programs), FAILING_S)
            patience_s = FAILING_S if self._refused else STOP_S
            self._stop = self._stop or Stop.ORDERLY
            self._wake.set()
            await self._end([each for each in self._programs if not each.ends_last], patience_s)
            await self._end(self._programs, patience_s)
        return EXIT_CONFIG if self._refused else 0

    def _all_serve(self) -> bool:
        return len(self._served) == len(self._programs)

    async def _keep(self, program: Program) -> None:
        """Run one program again and again."""
        delay_s = FIRST_DELAY_S
        while not self._stop:
            started = asyncio.get_running_loop().time()
            try:
                code, lines = await self._run_once(program)
            except OSError as exc:
                self._say("tagwire", f"{program.name} cannot be run: {exc}")
                code, lines = 127, (str(exc),)
            if self._stop:
                return
            if code == EXIT_CONFIG and program.name not in self._served:
                self._refused[program.name] = lines
                await self._tell()
                return
            if asyncio.get_running_loop().time() - started > STABLE_S:
                delay_s = FIRST_DELAY_S
            self._say("tagwire", f"{program.name} ended ({_cause(code)}); starting it again in {delay_s:g} s")
            try:
                async with asyncio.timeout(delay_s):
                    await self._wake.wait()
            except TimeoutError:
                delay_s = min(2 * delay_s, MAX_DELAY_S)

    async def _run_once(self, program: Program) -> tuple[int, tuple[str, ...]]:
        child = await Child.spawn(program, lambda line: self._say(program.name, line))
        self._children[program.name] = child
        if self._stop:
            child.kill()
        ready = asyncio.create_task(self._note_ready(child), name=f"{program.name} ready")
        try:
            return await child.wait(), tuple(child.last_lines)
        except asyncio.CancelledError:
            child.kill()
            raise
        finally:
            ready.cancel()
            del self._children[program.name]
            await self._tell()

    async def _note_ready(self, child: Child) -> None:
        await child.ready.wait()
        again = child.program.name in self._served
        self._served.add(child.program.name)
        if again:
            self._say("tagwire", f"{child.program.name} serves again")
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _wait(self, condition: Callable[[], bool], timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(condition)
        except TimeoutError:
            return

    async def _end(self, programs: Sequence[Program], patience_s: float) -> None:
        """Ask these programs to end and wait; kill those that do not, or all of them when somebody is in a hurry."""
        names = {program.name for program in programs}

        def gone() -> bool:
            return not names & self._children.keys()

        for name in names & self._children.keys():
            self._children[name].terminate()
        if self._stop is not Stop.NOW:
            await self._wait(lambda: gone() or self._stop is Stop.NOW, patience_s)
        for name in sorted(names & self._children.keys()):
            self._say("tagwire", f"{name} does not end: killed")
            self._children[name].kill()
        await self._wait(gone, STOP_S)

    async def _name_the_late(self) -> None:
        await asyncio.sleep(LATE_S)
        late = [each.name for each in self._programs if each.name not in self._served]
        self._say("tagwire", f"still waiting for {', '.join(late)}; the log above says why")


def _cause(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
