"""The configuration store: bulk creation, one page of a long list, loading everything; beside the same done row by row."""

import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from bench.configuration import tag_documents
from bench.table import Row, at_most
from storage.config_reader import ConfigReader
from storage.config_store import ConfigStore
from storage.engine import open_engine
from storage.migrate import migrate
from storage.models import Binding, Tag

MIB = 2**20


def run(quick: bool) -> list[Row]:
    """Rows {"figure", "ours", "peers", "unit", "target", "met"}; `quick` takes a tenth of the tags."""
    bulk, devices, per_device = (1_000, 20, 500) if quick else (10_000, 100, 1_000)
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(f"sqlite:///{Path(folder) / 'db.sqlite'}")
        migrate(engine)
        store, reader = ConfigStore(engine), ConfigReader(engine)
        device_id = _device(store, "bulk")
        seconds = _timed(lambda: store.create_tags_bulk(tag_documents(bulk), device_id=device_id))
        by_row = _timed(lambda: _by_row(engine, _device(store, "rows"), bulk))
        result = [at_most(f"{bulk} tags with 2 bindings created", seconds, "s", 2.0, {"ORM, one by one": by_row})]
        for number in range(devices):
            store.create_tags_bulk(tag_documents(per_device), device_id=_device(store, f"d{number}"))
        total = store.list_tags(page_size=1)[1]
        pages = [1, 2, total // 200, total // 100]
        times = [
            _timed(partial(store.list_tags, page, 100, sort))
            for _ in range(5)
            for page in pages
            for sort in ((), ("name",), ("-name",))
        ]
        slow = sorted(times)[int(len(times) * 0.95)]
        orm = _timed(lambda: _orm_page(engine))
        result.append(at_most(f"page of 100 out of {total} tags, p95", slow * 1e3, "ms", 8.0, {"ORM": orm * 1e3}))
        seconds = _timed(reader.load_devices)
        result.append(at_most(f"load of {total} tags, {2 * total} bindings", seconds, "s", 2.0, {}))
        tracemalloc.start()
        loaded = reader.load_devices()
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        result.append(at_most(f"memory of {sum(len(each.tags) for each in loaded)} tags", kept / MIB, "MiB", 150.0, {}))
        result.append(at_most("the same at its peak", peak / MIB, "MiB", 200.0, {}))
        engine.dispose()
    return result


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _device(store: ConfigStore, name: str) -> int:
    document = {"name": name, "network": {"mqtt": {"topic": f"plant/{name}"}, "modbus": {"host": "127.0.0.1"}}}
    return int(store.create_device(document)["id"])


def _by_row(engine: Any, device_id: int, count: int) -> None:
    """The usual way: an object and a flush for each row, to know its id."""
    with Session(engine) as session:
        for document in tag_documents(count):
            tag = Tag(device_id=device_id, name=document["name"])
            session.add(tag)
            session.flush()
            for each in document["bindings"]:
                session.add(Binding(tag_id=tag.id, **each))
                session.flush()
        session.commit()


def _orm_page(engine: Any) -> None:
    with Session(engine) as session:
        for tag in session.scalars(select(Tag).order_by(Tag.name).limit(100)).all():
            session.scalars(select(Binding).where(Binding.tag_id == tag.id)).all()
