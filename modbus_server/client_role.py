"""The role in a client's certificate, as Modbus/TCP Security defines it (Security 8.4, R-21, R-22, R-65).

The certificate has been checked by the TLS library; here only one extension is looked up in its DER encoding (X.690).
"""

from collections.abc import Iterator

from scada.errors import ProtocolError
from scada.modbus.limits import ROLE_OID

_SEQUENCE = 0x30
_OBJECT_ID = 0x06
_OCTET_STRING = 0x04
_UTF8_STRING = 0x0C
_EXTENSIONS = 0xA3  # RFC 5280 4.1: extensions [3] EXPLICIT
_MAX_LENGTH_BYTES = 4


def role_in(certificate: bytes) -> str | None:
    """The role of a DER certificate, None where it names none. Raises ProtocolError for bytes that are no certificate."""
    found = [value for oid, value in _extensions(certificate) if oid == _ROLE_OID]
    if not found:
        return None
    if len(found) > 1:
        raise ProtocolError("the certificate names more than one role")
    tag, text, rest = _take(found[0])
    if tag != _UTF8_STRING or rest:
        raise ProtocolError("the certificate's role is not an ASN1:UTF8String")
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise ProtocolError("the certificate's role is not UTF-8") from exc


def _extensions(certificate: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each extension's object identifier (encoded) and value."""
    to_be_signed = _inside(_inside(certificate, _SEQUENCE), _SEQUENCE)
    for tag, content in _items(to_be_signed):
        if tag == _EXTENSIONS:
            for _, extension in _items(_inside(content, _SEQUENCE)):
                parts = list(_items(extension))  # extnID, critical (may be left out), extnValue
                if len(parts) < 2 or parts[0][0] != _OBJECT_ID or parts[-1][0] != _OCTET_STRING:
                    raise ProtocolError("the certificate has a malformed extension")
                yield parts[0][1], parts[-1][1]


def _inside(data: bytes, wanted: int) -> bytes:
    tag, content, _ = _take(data)
    if tag != wanted:
        raise ProtocolError(f"not a certificate: tag {tag:#04x} instead of {wanted:#04x}")
    return content


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        tag, content, data = _take(data)
        yield tag, content


def _take(data: bytes) -> tuple[int, bytes, bytes]:
    """The first element's tag and content, and what follows it."""
    if len(data) < 2:
        raise ProtocolError("not a certificate: it ends early")
    start, length = 2, data[1]
    if length & 0x80:
        count = length & 0x7F
        if not 1 <= count <= _MAX_LENGTH_BYTES:
            raise ProtocolError("not a certificate: impossible length")
        start += count
        length = int.from_bytes(data[2:start], "big")
    if len(data) < start + length:
        raise ProtocolError("not a certificate: it ends early")
    return data[0], data[start : start + length], data[start + length :]


def _encode_oid(dotted: str) -> bytes:
    first, second, *rest = (int(part) for part in dotted.split("."))
    encoded = bytearray([40 * first + second])
    for part in rest:
        groups = [part & 0x7F]
        while part := part >> 7:
            groups.append(part & 0x7F | 0x80)
        encoded += bytes(reversed(groups))
    return bytes(encoded)


_ROLE_OID = _encode_oid(ROLE_OID)
