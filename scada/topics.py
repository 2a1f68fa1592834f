"""MQTT topics: which names and filters we accept and which filter matches which topic.

Stricter than MQTT 3.1.1 section 4.7 where a broker or a reader would stumble: a space closes the connection of the embedded
broker, and a level `*` or `>` is a wildcard to it (measured: a subscription to `a/*` receives `a/b`).
"""

import unicodedata

from scada.errors import ConfigError, Fault

MAX_TOPIC_BYTES = 65_535  # MQTT 3.1.1 section 1.5.3: a string's length is two bytes
MAX_NAME_CHARACTERS = 64


_NAME_FORBIDDEN = frozenset("/+#$@*>")
_SLASH_LIKE = frozenset("\u2044\u2215\u29f8\u2571")  # fraction slash, division slash, big solidus, box drawing diagonal
_NO_LEVELS = frozenset({"*", ">", ".", ".."})
# control, format (zero width, text direction), surrogate, spaces and line separators
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"})


def check_topic_name(text: str) -> None:
    """Raise ConfigError, naming what, unless a message may be published under `text`."""
    fault = _topic_fault(text)
    if not fault and ("+" in text or "#" in text):
        fault = "a topic name has no wildcards (+ and #)"
    if fault:
        raise ConfigError([Fault("", fault)])


def check_topic_filter(text: str) -> None:
    """Raise ConfigError, naming what, unless `text` may be subscribed to.

    Refused although MQTT knows them: filters that begin with `$` ($SYS, $share), and the bare `#`, which takes every
    message of everybody.
    """
    fault = _topic_fault(text)
    if not fault:
        levels = text.split("/")
        if any("+" in level and level != "+" for level in levels):
            fault = "+ stands for a whole level, as in a/+/b"
        elif any("#" in level for level in levels[:-1]) or levels[-1] not in ("#", levels[-1].replace("#", "")):
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


def is_name_safe(text: str) -> bool:
    """Whether check_name lets `text` pass."""
    return not _name_fault(text)


def matches(filter: str, topic: str) -> bool:
    """Whether a subscription to `filter` receives messages of `topic` (MQTT 3.1.1 section 4.7); both as they are, unchecked."""
    if topic[:1] == "$" and filter[:1] in ("+", "#"):  # section 4.7.2
        return False
    levels = topic.split("/")
    wanted = filter.split("/")
    for depth, part in enumerate(wanted):
        if part == "#":
            return True
        if depth == len(levels) or part not in ("+", levels[depth]):
            return len(levels) == depth and wanted[depth:] == ["#"]
    return len(wanted) == len(levels)


def _topic_fault(text: str) -> str:
    if not text:
        return "must not be empty"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "must not contain half of a surrogate pair"
    if size > MAX_TOPIC_BYTES:
        return f"is longer than {MAX_TOPIC_BYTES} bytes"
    hidden = _hidden_character(text)
    if hidden:
        return hidden
    if text.startswith("$"):
        return "must not start with $: those topics are the broker's own"
    levels = text.split("/")
    if "" in levels:
        return "must not have empty levels (a // or a / at an end)"
    odd = next((level for level in levels if level in _NO_LEVELS), None)
    return f"must not have a level {odd!r}" if odd else ""


def _name_fault(text: str) -> str:
    if not text:
        return "must not be empty"
    if len(text) > MAX_NAME_CHARACTERS:
        return f"is longer than {MAX_NAME_CHARACTERS} characters"
    hidden = _hidden_character(text)
    if hidden:
        return hidden
    if text in _NO_LEVELS:
        return f"must not be {text!r}"
    if not unicodedata.is_normalized("NFC", text):
        return "must be in Unicode normal form C"
    for character in text:
        folded = unicodedata.normalize("NFKC", character)
        if character in _SLASH_LIKE or not _NAME_FORBIDDEN.isdisjoint(folded):
            return f"must not contain {character!r}"
    return ""


def _hidden_character(text: str) -> str:
    for character in text:
        if unicodedata.category(character) in _INVISIBLE:
            return f"must not contain spaces, control or invisible characters ({character!r})"
    return ""
