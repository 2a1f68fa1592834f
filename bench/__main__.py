"""`python -m bench [NAME...] [--quick]`: us beside our peers, in one run; a table, and bench/out/bench.json."""

import json
import os
import platform
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path

import click

from bench.table import Row, as_markdown, print_table

HERE = Path(__file__).resolve().parent
OUT = HERE / "out" / "bench.json"


def names() -> list[str]:
    """The benchmarks: every module of this folder that has a `run(quick)`."""
    found = [path.stem for path in sorted(HERE.glob("*.py")) if path.stem not in ("__init__", "__main__", "table")]
    return [name for name in found if "\ndef run(" in (HERE / f"{name}.py").read_text(encoding="utf-8")]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("wanted", metavar="[NAME]...", nargs=-1)
@click.option("--quick", is_flag=True, help="Shorter runs: whether it works, not how fast it is.")
@click.option("--markdown", is_flag=True, help="Run nothing; print bench/out/bench.json as Markdown.")
def main(wanted: tuple[str, ...], quick: bool, markdown: bool) -> None:
    """Run all benchmarks, or those named. Exit code 1 when one failed or missed its target."""
    if markdown:
        click.echo(as_markdown(json.loads(OUT.read_text(encoding="utf-8"))))
        return
    unknown = set(wanted) - set(names())
    if unknown:
        raise click.UsageError(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    rows: list[Row] = []
    failed = []
    for name in wanted or names():
        click.echo(f"{name} ...", err=True)
        try:
            rows += import_module(f"bench.{name}").run(quick)
        except Exception:  # noqa: BLE001  # the top of a benchmark: the others are still worth their time
            traceback.print_exc()
            failed.append(name)
    report = {"time": time.strftime("%Y-%m-%d %H:%M"), "machine": machine(), "quick": quick, "rows": rows}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print_table(rows)
    if failed:
        click.echo(f"failed: {', '.join(failed)}", err=True)
    if failed or not all(row["met"] for row in rows):
        sys.exit(1)


def machine() -> str:
    """What the numbers were measured on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = models[0] if models else model
    return f"{os.cpu_count()} x {model}, {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
