"""What the Modbus documents fix: sizes, quantities and numbers, each with the section it comes from.

Documents: "MODBUS Application Protocol Specification V1.1b3" (here: APS), "MODBUS Messaging on TCP/IP Implementation
Guide V1.0b" (here: Guide), "MODBUS/TCP Security Protocol Specification v36" of 2021-07-30 (here: Security;
its requirements R-n have the same numbers in v21).
"""

from enum import StrEnum

# APS 4.1: the serial line's 256-byte ADU leaves 253 bytes for a PDU; TCP adds a 7-byte header to the same PDU.
MAX_PDU = 253
MBAP_HEADER = 7
MAX_ADU = MBAP_HEADER + MAX_PDU

# Guide 3.1.3: the length field counts the unit identifier and the PDU, and a PDU has at least a function code.
MIN_MBAP_LENGTH = 2
MAX_MBAP_LENGTH = 1 + MAX_PDU
MODBUS_PROTOCOL_ID = 0

TABLE_SIZE = 65_536  # APS 4.3, 4.4: every table is addressed from 0 to 65535
MAX_ADDRESS = TABLE_SIZE - 1
MAX_UNIT_ID = 255  # Guide 3.1.3: one byte; 4.4.1.2: 255 and 0 speak to a TCP device itself

MAX_READ_BITS = 0x07D0  # APS 6.1, 6.2
MAX_READ_REGISTERS = 0x007D  # APS 6.3, 6.4, and 6.17 for the read half
MAX_WRITE_BITS = 0x07B0  # APS 6.11
MAX_WRITE_REGISTERS = 0x007B  # APS 6.12
MAX_READ_WRITE_REGISTERS = 0x0079  # APS 6.17, the write half

COIL_ON = 0xFF00  # APS 6.5
COIL_OFF = 0x0000

ERROR_FLAG = 0x80  # APS 7: added to the function code of an exception response
MEI_DEVICE_IDENTIFICATION = 0x0E  # APS 6.19, 6.21

TCP_PORT = 502  # Guide 3.1.3, 4.2.1.2
TLS_PORT = 802  # Security 5
ROLE_OID = "1.3.6.1.4.1.50316.802.1"  # Security: the X.509v3 extension with the role, an ASN1:UTF8String


class Table(StrEnum):
    """The four tables of the Modbus data model (APS 4.3)."""

    COIL = "coil"
    DISCRETE_INPUT = "discrete_input"
    INPUT_REGISTER = "input_register"
    HOLDING_REGISTER = "holding_register"

    @property
    def is_bits(self) -> bool:
        """One bit an address, otherwise one 16-bit register."""
        return self in (Table.COIL, Table.DISCRETE_INPUT)

    @property
    def is_writable(self) -> bool:
        """A client can write it."""
        return self in (Table.COIL, Table.HOLDING_REGISTER)
