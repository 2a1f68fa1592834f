/* A Modbus TCP server on libmodbus in its usual shape: one select loop over every connection, as the library's own
 * many-connections example does it. Prints the port it listens on, then serves until it is killed.
 *
 * usage: libmodbus_server PORT
 */
#include <errno.h>
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/select.h>
#include <unistd.h>

enum { BACKLOG = 128, TABLE_SIZE = 65536 };

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s PORT\n", argv[0]);
        return 2;
    }
    modbus_t *context = modbus_new_tcp("127.0.0.1", atoi(argv[1]));
    modbus_mapping_t *mapping = modbus_mapping_new(TABLE_SIZE, TABLE_SIZE, TABLE_SIZE, TABLE_SIZE);
    if (context == NULL || mapping == NULL) {
        fprintf(stderr, "libmodbus: %s\n", modbus_strerror(errno));
        return 2;
    }
    int listener = modbus_tcp_listen(context, BACKLOG);
    if (listener == -1) {
        fprintf(stderr, "listen: %s\n", modbus_strerror(errno));
        return 2;
    }
    printf("%s\n", argv[1]);
    fflush(stdout);

    fd_set known;
    FD_ZERO(&known);
    FD_SET(listener, &known);
    int highest = listener;
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    for (;;) {
        fd_set readable = known;
        if (select(highest + 1, &readable, NULL, NULL, NULL) == -1) {
            if (errno == EINTR)
                continue;
            perror("select");
            return 1;
        }
        for (int fd = 0; fd <= highest; fd++) {
            if (!FD_ISSET(fd, &readable))
                continue;
            if (fd == listener) {
                int accepted = modbus_tcp_accept(context, &listener);
                if (accepted == -1)
                    continue;
                if (accepted >= FD_SETSIZE) { /* select() cannot watch it */
                    close(accepted);
                    continue;
                }
                FD_SET(accepted, &known);
                if (accepted > highest)
                    highest = accepted;
                continue;
            }
            modbus_set_socket(context, fd);
            int length = modbus_receive(context, query);
            if (length > 0) {
                modbus_reply(context, query, length, mapping);
            } else if (length == -1) {
                close(fd);
                FD_CLR(fd, &known);
            }
        }
    }
}
