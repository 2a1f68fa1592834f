/* A serial device on libmodbus: `server DEVICE_FILE`. Unit 1 at 115,200 8N1, 100 coils and 100 holding registers.
 * After each request for it: its function, then registers 0-15 and coils 0-15, on one line. */

#include <errno.h>
#include <modbus.h>
#include <stdio.h>

int main(int argc, char **argv) {
    modbus_t *line = argc == 2 ? modbus_new_rtu(argv[1], 115200, 'N', 8, 1) : NULL;
    modbus_mapping_t *map = modbus_mapping_new(100, 0, 100, 0);
    uint8_t request[MODBUS_RTU_MAX_ADU_LENGTH];

    if (line == NULL || map == NULL || modbus_set_slave(line, 1) == -1 || modbus_connect(line) == -1) {
        fprintf(stderr, "%s\n", modbus_strerror(errno));
        return 1;
    }
    printf("serving\n");
    fflush(stdout);
    for (;;) {
        int size = modbus_receive(line, request);
        if (size == -1 && errno != EMBBADCRC && errno != EMBBADDATA && errno != ETIMEDOUT)
            return 0; /* the line is gone */
        if (size <= 0 || modbus_reply(line, request, size, map) == -1)
            continue; /* noise, or another unit's */
        printf("%d:", request[1]);
        for (int i = 0; i < 16; i++)
            printf(" %04x", map->tab_registers[i]);
        for (int i = 0; i < 16; i++)
            printf(" %d", map->tab_bits[i]);
        printf("\n");
        fflush(stdout);
    }
}
