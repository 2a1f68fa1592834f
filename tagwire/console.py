"""`tagwire console`: tags looked at and set over the bus; at a prompt, as one command, or as commands from a file."""

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, Final, TypeVar

import click

from links.environment import BusSettings, MqttSettings, open_environment, read_bus, read_mqtt, seal
from scada.errors import ConfigError, Fault, LinkError
from scada.topics import BusTopics
from tagwire.bus_visit import BusVisit, reach
from tagwire.console_commands import COMMANDS, EXIT_FAILED, EXIT_USAGE, carry_out, carry_out_alone
from tagwire.console_output import Output
from tagwire.console_session import Session
from tagwire.console_values import Pattern

T = TypeVar("T")

NAME: Final = "console"
EXIT_INTERRUPTED: Final = 130
"""As shells have it: 128 and the number of SIGINT."""
FIRST_LOOK_S = 1.0
"""How long the first prompt waits for the broker."""
_ENDING_S = 3.0


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def console(command: tuple[str, ...]) -> None:
    """Look at tags, and set them, over the bus.

    With a COMMAND it does that and ends: `tagwire console get boiler@temperature`. Without one, on a terminal, it gives a
    prompt; else it reads commands from the standard input, one a line. `tagwire console help` shows the commands. Exit
    code 1: a command failed; 2: one was written wrong.
    """
    env = open_environment()
    mqtt, bus = read_mqtt(env), read_bus(env)
    seal(env)
    # What the link would log is told by the console itself.
    logging.getLogger("links").addHandler(logging.NullHandler())
    logging.getLogger("links").propagate = False
    sys.exit(Console(mqtt, bus).run(" ".join(command)))


class Console:
    """The bus lives in a loop in a thread of its own; this thread has the keyboard, and Ctrl-C."""

    def __init__(self, mqtt: MqttSettings, bus: BusSettings) -> None:
        self._mqtt = mqtt
        self._topics = BusTopics(bus.root)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bus", daemon=True)

    def run(self, command: str) -> int:
        """The exit code. Raises ConfigError for settings that cannot be used."""
        self._thread.start()
        try:
            if command or not sys.stdin.isatty():
                return self._run_commands(command)
            return self._run_prompt()
        except KeyboardInterrupt:
            name = command.partition(" ")[0]
            return 0 if name in COMMANDS and COMMANDS[name].lasts else EXIT_INTERRUPTED
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_ENDING_S)

    def _run_commands(self, command: str) -> int:
        output = Output(terminal=bool(command) and sys.stdout.isatty())
        session = self._call(self._open(output, None))
        flushing = self._spawn(session.flush_for_ever())
        try:
            if command == "help":
                return self._call(carry_out(session, command))
            try:
                self._call(session.visit.connect())
            except LinkError as error:
                output.complain(str(error))
                return EXIT_FAILED
            code = self._call(carry_out_alone(session, command)) if command else self._run_lines(session)
            self._call(session.settle())
            return code
        finally:
            flushing.cancel()
            self._call(session.visit.close())

    def _run_lines(self, session: Session) -> int:
        codes = {0}
        if isinstance(sys.stdin, TextIOWrapper):
            # Whatever the locale; a file from elsewhere may begin with a byte order mark.
            sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape")
        for text in sys.stdin:
            text = text.strip()
            if not text or text.startswith("#"):
                continue
            if text in ("quit", "exit") or session.output.closed:
                break
            try:
                codes.add(self._call(carry_out(session, text)))
            except KeyboardInterrupt:
                if not text.startswith("watch"):
                    raise
        return EXIT_USAGE if EXIT_USAGE in codes else max(codes)

    def _run_prompt(self) -> int:
        # readline changes the terminal when it is imported: only where there is a prompt.
        from tagwire.console_prompt import Prompt

        prompt = Prompt()
        output = Output(terminal=sys.stdout.isatty(), typed=prompt.typed)
        if prompt.error:
            output.complain(f"the history is not kept: {prompt.error}")

        leaving = threading.Event()

        def on_change(online: bool) -> None:
            if leaving.is_set():
                return
            output.complain(f"{session.visit.where}: {'online' if online else 'offline; trying again'}")

        session = self._call(self._open(output, on_change))
        flushing = self._spawn(session.flush_for_ever())
        output.say("help shows the commands, quit or Ctrl-D leaves")
        try:
            self._call(self._first_look(session))
            while not output.closed:
                prompt.names, prompt.patterns = session.names, session.patterns
                output.prompting = True
                try:
                    text = prompt.ask().strip()
                except EOFError:
                    output.prompting = False
                    output.say("")
                    break
                except KeyboardInterrupt:
                    output.prompting = False
                    output.say("")
                    continue
                output.prompting = False
                if text in ("quit", "exit"):
                    break
                if not text:
                    continue
                try:
                    self._call(carry_out(session, text))
                except KeyboardInterrupt:
                    output.say("")
            return 0
        finally:
            leaving.set()
            prompt.save()
            flushing.cancel()
            self._call(session.visit.close())

    async def _first_look(self, session: Session) -> None:
        """Whether the broker is there, at once; the names of tags for completion. It is tried again without end."""
        try:
            await reach(self._mqtt.host, self._mqtt.port)
        except LinkError as error:
            session.output.complain(f"{session.visit.where}: {error}; trying again")
        session.visit.start()
        if session.output.closed:
            return
        with suppress(LinkError):
            await session.visit.connected(FIRST_LOOK_S)
            await session.samples([Pattern("*")])

    async def _open(self, output: Output, on_change: Callable[[bool], None] | None) -> Session:
        try:
            return Session(BusVisit(self._mqtt, self._topics, NAME, on_change), output)
        except OSError as error:
            raise ConfigError([Fault("MQTT_TLS_CA", f"or MQTT_TLS_CERT cannot be used: {error}")]) from error

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "Future[None]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, done in the loop. Ctrl-C ends it, waits until it has ended, and goes on as KeyboardInterrupt."""
        ended = threading.Event()

        async def run() -> T:
            try:
                return await work
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(run(), self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            ended.wait(_ENDING_S)
            raise
