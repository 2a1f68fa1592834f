/* An independent client of registers that are tags: argv[1] is the port. Exit 0 when every answer is as it should be. */
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
    modbus_set_slave(client, 1);
    uint16_t got[40], words[4];
    uint8_t bits[2] = {1, 0};

    /* A float of two registers, whole; then a block of which a part is not for clients to write, or is not there at all. */
    words[0] = 0x40D0, words[1] = 0; /* 6.5 */
    CHECK(modbus_write_registers(client, 10, 2, words) == 2);
    CHECK(modbus_read_registers(client, 10, 2, got) == 2 && memcmp(got, words, 4) == 0);
    CHECK(modbus_write_registers(client, 19, 2, words) == -1 && errno == EMBXILADD);
    CHECK(modbus_write_registers(client, 48, 4, words) == -1 && errno == EMBXILADD);
    CHECK(modbus_read_registers(client, 48, 4, got) == -1 && errno == EMBXILADD);
    CHECK(modbus_read_registers(client, 19, 1, got) == 1 && got[0] == 0);

    /* Register 20 shows a tag that is not good: its neighbours and its status are there, no block with it is. */
    CHECK(modbus_read_registers(client, 19, 3, got) == -1 && errno == EMBXGTAR);
    CHECK(modbus_write_and_read_registers(client, 10, 2, words, 20, 1, got) == -1 && errno == EMBXGTAR);
    CHECK(modbus_read_registers(client, 21, 2, got) == 2 && got[1] == 2);

    CHECK(modbus_mask_write_register(client, 14, 0xFFFF, 0x0000) != -1);
    CHECK(modbus_mask_write_register(client, 14, 0xFFF0, 0x0003) != -1);
    CHECK(modbus_read_registers(client, 14, 1, got) == 1 && got[0] == 3);
    CHECK(modbus_write_bits(client, 3, 2, bits) == 2);
    words[0] = 0xC0E8; /* -7.25 */
    CHECK(modbus_write_and_read_registers(client, 10, 2, words, 10, 5, got) == 5);
    CHECK(memcmp(got, words, 4) == 0 && got[4] == 3);
    modbus_close(client);
    modbus_free(client);
    return 0;
}
