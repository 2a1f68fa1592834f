"""MQTT topics: which names and filters we accept, and those of the bus.

Stricter than MQTT 3.1.1 section 4.7 where a broker or a reader would stumble: a space closes the connection of the embedded
broker, and a level `*` or `>` is a wildcard to it (measured: a subscription to `a/*` receives `a/b`).
"""

import unicodedata
from dataclasses import dataclass

from scada.errors import ConfigError, Fault

MAX_TOPIC_BYTES = 65_535  # MQTT 3.1.1 section 1.5.3: a string's length is two bytes
MAX_NAME_CHARACTERS = 64


_NAME_FORBIDDEN = frozenset("/+#$@*>")
_SLASH_LIKE = frozenset("\u2044\u2215\u29f8\u2571")  # fraction slash, division slash, big solidus, box drawing diagonal
_NAME_FORBIDDEN_OR_SPACE = _NAME_FORBIDDEN | {" "}
_NO_LEVELS = frozenset({"*", ">", ".", ".."})
# control, format (zero width, text direction), surrogate, spaces and line separators
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"})
_OF_OWNER_AND_DEVICE = frozenset({"data", "state", "link", "plan"})
_OF_OWNER = frozenset({"server", "heartbeat"})
_OF_DEVICE = frozenset({"set", "call", "feedback"})


def check_topic_name(text: str) -> None:
    """Raise ConfigError, naming what, unless a message may be published under `text`."""
    fault = _topic_fault(text)
    if not fault and ("+" in text or "#" in text):
        fault = "a topic name has no wildcards (+ and #)"
    if fault:
        raise ConfigError([Fault("", fault)])


def check_topic_filter(text: str) -> None:
    """Raise ConfigError, naming what, unless `text` may be subscribed to; never `$SYS` nor `$share`."""
    fault = _topic_fault(text)
    if not fault:
        levels = text.split("/")
        if any("+" in level and level != "+" for level in levels):
            fault = "+ stands for a whole level, as in a/+/b"
        elif any("#" in level for level in levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
            fault = "# stands for all further levels and is the last, as in a/#"
    if fault:
        raise ConfigError([Fault("", fault)])


def check_name(text: str) -> None:
    """Raise ConfigError, naming what, unless `text` can name a device, term, item or tag.

    A name is one level of a topic, one part of `Device@Tag` and one piece of an URL: 1..64 characters, in normal form C (so
    that two names that look alike are not two spellings of one), without `/ + # $ @ * >`, without spaces, control and
    invisible characters, and without characters that only look like those (compatibility forms such as the fullwidth
    solidus, other slashes); not `.` and not `..`. Letters of different scripts that look alike stay different names:
    plants do mix scripts.
    """
    fault = _name_fault(text)
    if fault:
        raise ConfigError([Fault("", fault)])


def _topic_fault(text: str) -> str:
    if not text:
        return "a topic has at least one character"
    if fault := _character_fault(text, "topic"):
        return fault
    if len(text.encode()) > MAX_TOPIC_BYTES:
        return f"a topic has at most {MAX_TOPIC_BYTES} bytes of UTF-8, not {len(text.encode())}"
    if text[0] == "$":
        return "a topic that begins with $ belongs to the broker"
    for number, level in enumerate(text.split("/"), 1):
        if not level:
            return f"level {number} is empty"
        if level in _NO_LEVELS:
            return f"level {number} is {level!r}, which brokers and programs take for more than a name"
    return ""


def _name_fault(text: str) -> str:
    if not text:
        return "a name has at least one character"
    if len(text) > MAX_NAME_CHARACTERS:
        return f"a name has at most {MAX_NAME_CHARACTERS} characters, not {len(text)}"
    if fault := _character_fault(text, "name"):
        return fault
    if text in (".", ".."):
        return f"{text!r} is a folder and no name"
    if not unicodedata.is_normalized("NFC", text):
        return f"write {unicodedata.normalize('NFC', text)!r}: the name is not in Unicode normal form C"
    for char in text:
        if char in _NAME_FORBIDDEN:
            return f"{char!r} is not for names: none of / + # $ @ * >"
        if char in _SLASH_LIKE or not _NAME_FORBIDDEN_OR_SPACE.isdisjoint(unicodedata.normalize("NFKC", char)):
            return f"{char!r} (U+{ord(char):04X}) looks like one of / + # $ @ * > or like a space"
    return ""


def _character_fault(text: str, what: str) -> str:
    for position, char in enumerate(text, 1):
        if char <= "~" and char > " ":
            continue
        code = ord(char)
        if unicodedata.category(char) in _INVISIBLE or code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF:
            return f"a {what} has no spaces, control or invisible characters: U+{code:04X}, character {position}"
    return ""


@dataclass(frozen=True, slots=True)
class BusTopic:
    """A topic of the bus taken apart; `owner` and `device` are "" where the kind has none."""

    kind: str
    owner: str
    device: str


@dataclass(frozen=True, slots=True)
class BusTopics:
    """The topics of the bus below `root`; the table in the plan of the house, section 3, says what each carries.

    An owner or device of `+` makes the filter for all of them.
    """

    root: str = "tagwire"

    def data(self, owner: str, device: str) -> str:
        """The changes of a device's tags, in order."""
        return f"{self.root}/data/{owner}/{device}"

    def state(self, owner: str, device: str) -> str:
        """The last value of every tag of that owner on that device, retained."""
        return f"{self.root}/state/{owner}/{device}"

    def link(self, owner: str, device: str) -> str:
        """Whether the owner reaches the device, retained."""
        return f"{self.root}/link/{owner}/{device}"

    def plan(self, owner: str, device: str) -> str:
        """How the owner reads the device, retained."""
        return f"{self.root}/plan/{owner}/{device}"

    def server(self, owner: str) -> str:
        """Whether a program is there, retained; its last will says that it is not."""
        return f"{self.root}/server/{owner}"

    def heartbeat(self, owner: str) -> str:
        """What a program sends to itself to know that the broker passes messages on."""
        return f"{self.root}/heartbeat/{owner}"

    def set(self, device: str) -> str:
        """Commands for a device's tags, never retained."""
        return f"{self.root}/set/{device}"

    def call(self, device: str) -> str:
        """Requests to read tags of a device now, never retained."""
        return f"{self.root}/call/{device}"

    def feedback(self, device: str) -> str:
        """What becomes of commands and calls, by their ids."""
        return f"{self.root}/feedback/{device}"

    @property
    def config(self) -> str:
        """The configuration's revision number, retained."""
        return f"{self.root}/config"

    def owns(self, topic_filter: str) -> bool:
        """Whether everything that a topic or filter takes is the bus's: it is the root, or begins with it."""
        return f"{topic_filter}/".startswith(f"{self.root}/")

    def split(self, topic: str) -> BusTopic | None:
        """The parts of a topic below the root; None for any other."""
        if not topic.startswith(self.root + "/"):
            return None
        kind, *rest = topic[len(self.root) + 1 :].split("/")
        if kind in _OF_OWNER_AND_DEVICE and len(rest) == 2:
            return BusTopic(kind, rest[0], rest[1])
        if kind in _OF_OWNER and len(rest) == 1:
            return BusTopic(kind, rest[0], "")
        if kind in _OF_DEVICE and len(rest) == 1:
            return BusTopic(kind, "", rest[0])
        return BusTopic(kind, "", "") if kind == "config" and not rest else None
