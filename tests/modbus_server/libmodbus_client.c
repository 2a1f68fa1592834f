/* An independent client for the tests: every function of libmodbus against the server on argv[1]. Exit 0 when all is as it should be. */
#include <errno.h>
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #condition, modbus_strerror(errno)); \
            return 1;                                                                             \
        }                                                                                         \
    } while (0)

int main(int argc, char **argv)
{
    modbus_t *client = modbus_new_tcp("127.0.0.1", argc > 1 ? atoi(argv[1]) : 502);
    CHECK(client != NULL && modbus_connect(client) == 0);
    modbus_set_slave(client, 17);

    uint8_t bits[MODBUS_MAX_WRITE_BITS], got_bits[MODBUS_MAX_READ_BITS];
    uint16_t words[MODBUS_MAX_WRITE_REGISTERS], got[MODBUS_MAX_READ_REGISTERS];
    for (int i = 0; i < MODBUS_MAX_WRITE_BITS; i++)
        bits[i] = (uint8_t)(i % 3 == 0);
    for (int i = 0; i < MODBUS_MAX_WRITE_REGISTERS; i++)
        words[i] = (uint16_t)(i * 257 + 1);

    CHECK(modbus_write_bits(client, 305, MODBUS_MAX_WRITE_BITS, bits) == MODBUS_MAX_WRITE_BITS);
    CHECK(modbus_read_bits(client, 305, MODBUS_MAX_WRITE_BITS, got_bits) == MODBUS_MAX_WRITE_BITS);
    CHECK(memcmp(bits, got_bits, MODBUS_MAX_WRITE_BITS) == 0);
    CHECK(modbus_write_bit(client, 305, 0) == 1 && modbus_read_bits(client, 305, 1, got_bits) == 1 && got_bits[0] == 0);
    CHECK(modbus_read_input_bits(client, 0, MODBUS_MAX_READ_BITS, got_bits) == MODBUS_MAX_READ_BITS);

    CHECK(modbus_write_registers(client, 1000, MODBUS_MAX_WRITE_REGISTERS, words) == MODBUS_MAX_WRITE_REGISTERS);
    CHECK(modbus_read_registers(client, 1000, MODBUS_MAX_READ_REGISTERS, got) == MODBUS_MAX_READ_REGISTERS);
    CHECK(memcmp(words, got, sizeof words) == 0);
    CHECK(modbus_write_register(client, 1000, 0x1234) == 1 && modbus_read_registers(client, 1000, 1, got) == 1 && got[0] == 0x1234);
    CHECK(modbus_read_input_registers(client, 0, MODBUS_MAX_READ_REGISTERS, got) == MODBUS_MAX_READ_REGISTERS);

    CHECK(modbus_write_register(client, 7, 0x12) == 1 && modbus_mask_write_register(client, 7, 0xF2, 0x25) != -1);
    CHECK(modbus_read_registers(client, 7, 1, got) == 1 && got[0] == 0x17);

    CHECK(modbus_write_and_read_registers(client, 2000, MODBUS_MAX_WR_WRITE_REGISTERS, words, 2000, MODBUS_MAX_WR_READ_REGISTERS, got) ==
          MODBUS_MAX_WR_READ_REGISTERS);
    CHECK(memcmp(words, got, 2 * MODBUS_MAX_WR_WRITE_REGISTERS) == 0);

    CHECK(modbus_read_registers(client, 65535, 2, got) == -1 && errno == EMBXILADD);
    CHECK(modbus_report_slave_id(client, sizeof got_bits, got_bits) == -1 && errno == EMBXILFUN);
    CHECK(modbus_read_registers(client, 65535, 1, got) == 1);
    modbus_close(client);
    modbus_free(client);
    return 0;
}
