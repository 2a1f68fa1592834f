from sqlalchemy import Engine

from scada.values import RejectCode
from storage.event_store import KEPT, RejectLog, RejectRow


def reject(number: int, code: str = "missing", topic: str = "a") -> RejectRow:
    return RejectRow(number, topic, "{}", code, "no such key", "boiler", None)


def test_the_newest_thousand_are_kept_and_counted_all(engine: Engine) -> None:
    log = RejectLog(engine)
    for start in range(0, 1_500, 300):
        log.append([reject(number) for number in range(start, start + 300)], {RejectCode.MISSING: 300})
    items, total = log.list(page_size=2)
    assert ([item["time_ms"] for item in items], total) == ([1_499, 1_498], KEPT)
    assert log.list(KEPT, 1)[0][0]["time_ms"] == 500
    assert log.counts() == {"missing": 1_500}
    log.append([reject(number) for number in range(2_000, 5_000)], {})
    assert log.list(KEPT, 1)[0][0]["time_ms"] == 4_000


def test_filters_and_sorting(engine: Engine) -> None:
    log = RejectLog(engine)
    log.append([reject(1), reject(2, "not_json", "b/c"), reject(3, "not_json", "b/d")], {"missing": 1, "not_json": 2})
    items, total = log.list(filters={"code": "not_json"}, sort=["time_ms"])
    assert ([item["topic"] for item in items], total) == (["b/c", "b/d"], 2)
    assert log.list(filters={"topic": "b/*"})[1] == 2
    assert set(items[0]) == {"id", "time_ms", "topic", "payload", "code", "reason", "device", "tag"}


def test_texts_too_long_or_unfit_are_cut_and_mended(engine: Engine) -> None:
    log = RejectLog(engine)
    log.append([RejectRow(1, "t" * 70_000, "\0\ud800x" * 200, "c" * 99, "r" * 9_999, "d" * 99, None)], {"c" * 32: 1})
    item = log.list()[0][0]
    lengths = {name: len(value) for name, value in item.items() if isinstance(value, str)}
    assert lengths == {"topic": 512, "payload": 256, "code": 32, "reason": 512, "device": 64}
    assert item["payload"].startswith("\ufffd?x")
