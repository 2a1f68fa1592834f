"""Batches: the changes of one device as one `data` message, numbered in the order in which their owner made them. Pure."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import orjson

from scada.bus_messages import encode_data
from scada.payload import MAX_PAYLOAD_BYTES
from scada.values import Sample

MAX_SAMPLES = 1000
"""In one message: what waits behind it, commands' feedback too, shall not wait long."""


class Batch(NamedTuple):
    """`payload` is a `data` message of `size` samples without the mark `late`; `number` rises by one from batch to batch."""

    number: int
    device: str
    size: int
    payload: bytes


def split_payloads(samples: Sequence[Sample]) -> Iterator[tuple[int, bytes]]:
    """Messages that every receiver takes, and how many samples each holds; one that no message can hold comes as b""."""
    for start in range(0, len(samples), MAX_SAMPLES):
        yield from _halve(samples[start : start + MAX_SAMPLES])


def mark_late(payload: bytes) -> bytes:
    """The same `data` message with every sample marked late."""
    rows = orjson.loads(payload)
    for row in rows:
        if len(row) == 4:
            row.append({"late": True})
        else:
            row[4]["late"] = True
    return orjson.dumps(rows)


def _halve(samples: Sequence[Sample]) -> Iterator[tuple[int, bytes]]:
    try:
        payload = encode_data(samples)
    except TypeError:  # a lone surrogate, an integer beyond 64 bits
        payload = b""
    # Marked late each sample grows by this much.
    if payload and len(payload) + 15 * len(samples) <= MAX_PAYLOAD_BYTES:
        yield len(samples), payload
    elif len(samples) == 1:
        yield 1, b""
    else:
        middle = len(samples) // 2
        yield from _halve(samples[:middle])
        yield from _halve(samples[middle:])
