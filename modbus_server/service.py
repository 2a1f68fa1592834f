"""The Modbus server's loop: memory, images, listener, and the way down."""

import asyncio
import logging
import mmap
import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

from links.loop import stop_on_signals
from links.modbus_connection import Answer, Peer
from links.modbus_listener import ModbusListener
from links.notify import notify_ready, notify_stopping
from modbus_server.answers import Answers, Right
from modbus_server.background import keep_mailbox
from modbus_server.client_role import role_in
from modbus_server.register_file import SHARED_PLACE, anonymous_memory, offset_of, open_register_file, place_of
from modbus_server.settings import ANY_ROLE, GUARD_FILE, NO_ROLE, Settings
from scada.errors import ProtocolError
from scada.modbus.image import Image
from scada.modbus.limits import MAX_UNIT_ID

logger = logging.getLogger(__name__)

_GRACE_S = 2.0  # of the 5 s in which a stop must be over
_OWN_FDS = 32  # what the process itself has open besides connections


async def serve(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. `say` gets the line that tells where. Raises ConfigError when it cannot listen."""
    _raise_fd_limit(settings.limits.max_connections + _OWN_FDS)
    stop = stop_on_signals()
    with _memory(settings) as memory:
        images = _images(settings, memory)
        answers = _answers(settings, _careful(settings, images))
        listener = ModbusListener(_answer_for(settings, answers), settings.limits)
        mailbox = None

        def use(units: Mapping[int, Image]) -> None:
            for each in answers.values():
                each.use(units)

        try:
            where = [f"{host}:{port}" for host, port in listener.open(settings.host, settings.port)]
            if settings.tls is not None:
                found = listener.open(settings.host, settings.tls.port, settings.tls.context)
                where += [f"{host}:{port} (TLS)" for host, port in found]
            line = f"Modbus server listens on {', '.join(where)}; {_describe(settings)}"
            say(line)
            notify_ready(line)
            mailbox = asyncio.create_task(keep_mailbox(settings.mailbox, images, use, stop), name="mailbox")
            await stop.wait()
            notify_stopping()
        finally:
            stop.set()
            # What clients have written until now still goes onto the bus: the mailbox takes longer to leave than they do.
            await asyncio.gather(listener.close(_GRACE_S), *([mailbox] if mailbox else []))


def _describe(settings: Settings) -> str:
    units = "one image for every unit id" if settings.units.shared else f"{len(settings.units.units)} units"
    kept = f"registers in {settings.data_dir}" if settings.data_dir else "registers not kept"
    return f"{units}, {kept}{', read only' if settings.read_only else ''}"


@contextmanager
def _memory(settings: Settings) -> Iterator[mmap.mmap]:
    places = [SHARED_PLACE] if settings.units.shared else [place_of(unit_id) for unit_id in settings.units.units]
    if settings.data_dir is None:
        yield anonymous_memory(places)
    else:
        with open_register_file(settings.data_dir, places) as memory:
            yield memory


def _images(settings: Settings, memory: mmap.mmap) -> Mapping[int, Image]:
    if settings.units.shared is not None:
        image = Image(memory, settings.units.shared, offset_of(SHARED_PLACE))
        return dict.fromkeys(range(MAX_UNIT_ID + 1), image)
    return {
        unit_id: Image(memory, unit_map, offset_of(place_of(unit_id)))
        for unit_id, unit_map in settings.units.units.items()
    }


def _careful(settings: Settings, images: Mapping[int, Image]) -> Mapping[int, Image]:
    """The images that clients see until the configuration is read."""
    if not (settings.mailbox.folder / GUARD_FILE).exists():
        return images
    # Imported here: a server without tags starts a third faster without it.
    from modbus_server.mailbox.guard import guarded_images

    return guarded_images(settings.mailbox.folder, images)


def _answers(settings: Settings, units: Mapping[int, Image]) -> Mapping[Right, Answers]:
    identity = _identity(settings.name)
    by_right = {right: Answers(units, identity, right, settings.unknown_unit) for right in Right}
    return {**by_right, Right.WRITE: by_right[Right.READ]} if settings.read_only else by_right


def _answer_for(settings: Settings, by_right: Mapping[Right, Answers]) -> Callable[[Peer], Answer]:
    roles = settings.tls.roles if settings.tls else {}

    def answer_for(peer: Peer) -> Answer:
        if peer.certificate is None:
            return by_right[Right.WRITE]
        try:
            role = role_in(peer.certificate)
        except ProtocolError as exc:
            logger.warning("client %s gets no rights: %s", peer.host, exc)
            return by_right[Right.NONE]
        if role is None:
            return by_right[roles.get(NO_ROLE, Right.NONE)]
        # A role in the certificate must not pass for one of the table's two signs.
        named = roles.get(role) if role not in (ANY_ROLE, NO_ROLE) else None
        return by_right[named or roles.get(ANY_ROLE, Right.NONE)]

    return answer_for


def _identity(name: str) -> Mapping[int, bytes]:
    try:
        release = version("tagwire")
    except PackageNotFoundError:  # run from a checkout
        release = "checkout"
    texts = {0: "Tagwire", 1: "modbus_server", 2: release, 4: "Tagwire Modbus TCP server", 6: name}
    return {key: text.encode() for key, text in texts.items() if text}


def _raise_fd_limit(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(allowed, soft), hard))
    if allowed < wanted:
        logger.warning("only %d file descriptors are allowed, %d would be needed for every connection", allowed, wanted)
