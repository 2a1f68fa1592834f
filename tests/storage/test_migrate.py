import subprocess
import sys
import time
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

from scada.errors import ConfigError
from storage.engine import open_engine, reading, writing
from storage.migrate import HEAD, alembic_config, migrate
from storage.models import Base

ROOT = Path(__file__).resolve().parents[2]


def test_the_migrations_make_exactly_the_models_tables(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_an_id_is_never_used_twice_in_sqlite(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/db.sqlite")
    migrate(engine)
    with reading(engine) as connection:
        tables = dict(connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'table'")).all())
    for name in ("device", "network", "term", "item", "tag", "binding", "outbox"):
        assert "AUTOINCREMENT" in tables[name]


def test_head_is_the_newest_file() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_heads() == [HEAD]


def test_every_step_can_be_undone(uri: str) -> None:
    engine = open_engine(uri)
    migrate(engine)
    with writing(engine) as connection:
        command.downgrade(alembic_config(connection), "base")
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    migrate(engine)
    engine.dispose()


def test_doing_it_again_is_quick_and_does_not_load_alembic(uri: str) -> None:
    program = (
        "import sys, time; from storage.engine import open_engine; from storage.migrate import migrate\n"
        "engine = open_engine(sys.argv[1]); start = time.perf_counter(); migrate(engine)\n"
        "print(time.perf_counter() - start, 'alembic' in sys.modules)"
    )
    results = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", program, uri], cwd=ROOT, capture_output=True, text=True, check=True
        )
        results.append(done.stdout.split())
    (first, loaded), (second, loaded_again) = results
    assert (loaded, loaded_again) == ("True", "False")
    assert float(second) < float(first) / 2


def test_programs_that_start_together_migrate_once(uri: str) -> None:
    program = (
        "import sys; from storage.engine import open_engine; from storage.migrate import migrate\n"
        "engine = open_engine(sys.argv[1]); sys.stdin.read(); migrate(engine)"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", program, uri], cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    time.sleep(1.0)
    for child in children:
        assert child.stdin is not None
        child.stdin.close()
        child.stdin = None
    errors = [child.communicate(timeout=60)[1] for child in children]
    assert ([child.returncode for child in children], errors) == ([0] * 4, [b""] * 4)
    engine = open_engine(uri)
    with reading(engine) as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [HEAD]
    engine.dispose()


def test_a_database_of_a_newer_program_is_refused(uri: str) -> None:
    engine = open_engine(uri)
    migrate(engine)
    with writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="newer program"):
        migrate(engine)
    engine.dispose()


def test_tables_of_somebody_else_are_left_alone(uri: str) -> None:
    engine = open_engine(uri)
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE device (serial INTEGER)"))
    with pytest.raises(ConfigError, match="another program: device"):
        migrate(engine)
    assert inspect(engine).get_table_names() == ["device"]
    engine.dispose()


def test_the_command_says_what_it_did_and_what_is_wrong(tmp_path: Path) -> None:
    def run(uri: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "storage.migrate"]
        environment = {"SQLALCHEMY_DATABASE_URI": uri, "PATH": "/usr/bin:/bin"}
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)

    good = run(f"sqlite:///{tmp_path}/db.sqlite")
    assert (good.returncode, good.stdout) == (0, f"sqlite:///{tmp_path}/db.sqlite: version {HEAD}\n")
    bad = run("nonsense")
    assert (bad.returncode, bad.stderr.count("\n")) == (2, 1)
