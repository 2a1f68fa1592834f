"""The console's prompt: line editing, history and completion by the standard library's readline."""

import os
import readline
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tagwire.console_commands import COMMANDS

PROMPT = "tagwire> "
HISTORY_LINES = 1_000
MOST_OFFERED = 200
_TAKES_TAGS = frozenset({"list", "get", "set", "read", "sub", "watch"})
_TAKES_DEVICES = frozenset({"links", "plan", "read"})


class Prompt:
    """One per console, on a terminal. `names`: full names of tags, in order, which completion offers."""

    def __init__(self, history: Path | None = None) -> None:
        self.names: Sequence[str] = ()
        self.patterns: Sequence[str] = ()
        self.error = ""
        """Why the history is not kept; "" when it is."""
        self._history = history_file() if history is None else history
        self._offered: list[str] = []
        readline.set_history_length(HISTORY_LINES)
        readline.set_completer_delims(" ")
        readline.set_completer(self._complete)
        # libedit, which stands in for readline on some systems, has words of its own.
        is_libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")
        try:
            self._history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                readline.read_history_file(self._history)
        except OSError as error:
            self.error = f"{self._history}: {error.strerror}"

    def ask(self) -> str:
        """The next line; raises EOFError and KeyboardInterrupt."""
        return input(PROMPT)

    def typed(self) -> str:
        """Prompt and line as they stand on the terminal."""
        return PROMPT + readline.get_line_buffer()

    def save(self) -> None:
        """Keep the history; what was set may concern nobody else."""
        if self.error:
            return
        try:
            self._history.touch(mode=0o600)
            readline.write_history_file(self._history)
        except OSError as error:
            self.error = f"{self._history}: {error.strerror}"

    def _complete(self, text: str, state: int) -> str | None:
        if state == 0:
            self._offered = self.offers(readline.get_line_buffer()[: readline.get_begidx()], text)
        return self._offered[state] if state < len(self._offered) else None

    def offers(self, before: str, text: str) -> list[str]:
        """What may stand for `text` behind `before`."""
        words = before.split()
        if not words:
            return [f"{name} " for name in COMMANDS if name.startswith(text)]
        found: list[str] = []
        if words[0] == "help":
            found += (name for name in COMMANDS if name.startswith(text))
        if words[0] == "unsub":
            found += (pattern for pattern in self.patterns if pattern.startswith(text))
        if words[0] == "set" and len(words) > 1:
            return []
        if words[0] in _TAKES_TAGS:
            found += self._tags(text)
        if words[0] in _TAKES_DEVICES:
            found += dict.fromkeys(name.partition("@")[0] for name in self._tags(text))
        return found

    def _tags(self, text: str) -> list[str]:
        first = bisect_left(self.names, text)
        found = []
        for name in self.names[first : first + MOST_OFFERED]:
            if not name.startswith(text):
                break
            found.append(name)
        return found


def history_file() -> Path:
    """Where the XDG base directory specification has what a program remembers."""
    folder = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(folder).expanduser() / "tagwire" / "console_history"
