"""Values, their quality, and why a value was refused."""

from enum import StrEnum
from typing import NamedTuple

TYPE_NAMES = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "text",
    type(None): "null",
    dict: "object",
    list: "array",
}

Value = bool | int | float | str


class DataType(StrEnum):
    """What a tag's value is, in engineering terms."""

    FLOAT = "float"
    INT = "int"
    BOOL = "bool"
    STRING = "string"


class Quality(StrEnum):
    """Good, uncertain or bad, after OPC UA Part 8."""

    GOOD = "good"
    UNCERTAIN = "uncertain"
    BAD = "bad"


class Reason(StrEnum):
    """Why a quality is not good."""

    NONE = ""
    COMM_FAILURE = "comm_failure"
    STALE = "stale"
    OUT_OF_RANGE = "out_of_range"
    NOT_CONNECTED = "not_connected"
    SUBSTITUTED = "substituted"
    CONFIG_ERROR = "config_error"
    DEVICE_FAILURE = "device_failure"


class Sample(NamedTuple):
    """One value of one tag of a device, by the tag's name; a value never travels without quality and time (UTC, milliseconds).

    `value` is the last one known where the quality is bad, None when there was none. `late`: it was kept back while the
    broker was away, and newer ones may have been seen elsewhere.
    """

    tag: str
    value: Value | None
    quality: Quality
    time_ms: int
    reason: Reason = Reason.NONE
    late: bool = False


class RejectCode(StrEnum):
    """Why a message or a value was not written. One word, counted and filtered by."""

    EMPTY = "empty"
    TOO_LARGE = "too_large"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    BAD_TOPIC = "bad_topic"
    MISSING = "missing"
    WRONG_TYPE = "wrong_type"
    NOT_INTEGER = "not_integer"
    OUT_OF_RANGE = "out_of_range"
    UNKNOWN_TEXT = "unknown_text"
    BAD_TIME = "bad_time"
    BAD_CONFIG = "bad_config"
    DEVICE_REFUSED = "device_refused"
    VERIFY_FAILED = "verify_failed"
    OVERFLOW = "overflow"
    INTERNAL = "internal"


class BadValue(ValueError):
    """A value that cannot be taken: wrong type, out of range, missing. Data, not a fault of the program: count it and go on."""

    def __init__(self, code: RejectCode, message: str) -> None:
        self.code = code
        super().__init__(message)
