/* A Modbus TCP load generator on raw sockets: every connection keeps exactly one request under way.
 *
 * usage: modbus_load PORT CONNECTIONS SECONDS read|write COUNT
 * prints: REQUESTS SECONDS P50_US P99_US ANSWERED (connections that got at least one answer); exits 1 at the first answer that is not the expected one.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_ADU = 260, MAX_EVENTS = 256, BUCKETS = 200000 };

struct connection {
    int fd;
    unsigned long transaction; /* the low 16 bits are sent */
    size_t got;
    double sent_s;
    uint8_t reply[MAX_ADU];
};

static uint8_t request[MAX_ADU];
static size_t request_length, reply_length;
static uint8_t function_code;
static uint32_t latency_us[BUCKETS];

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void fail(const char *what)
{
    fprintf(stderr, "modbus_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void build(const char *kind, unsigned count)
{
    int writes = strcmp(kind, "write") == 0;
    function_code = writes ? 16 : 3;
    request[6] = 1;
    request[7] = function_code;
    put16(request + 8, 100);
    put16(request + 10, count);
    request_length = 12;
    reply_length = 9 + 2 * count;
    if (writes) {
        request[12] = (uint8_t)(2 * count);
        for (unsigned i = 0; i < count; i++)
            put16(request + 13 + 2 * i, i);
        request_length = 13 + 2 * count;
        reply_length = 12;
    }
    put16(request + 4, (unsigned)request_length - 6);
}

static void send_request(struct connection *c)
{
    c->transaction++;
    c->got = 0;
    put16(request, c->transaction & 0xFFFF);
    c->sent_s = now_s();
    if (send(c->fd, request, request_length, MSG_NOSIGNAL) != (ssize_t)request_length)
        fail("send");
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: %s PORT CONNECTIONS SECONDS read|write COUNT\n", argv[0]);
        return 2;
    }
    int connections = atoi(argv[2]);
    double seconds = atof(argv[3]);
    build(argv[4], (unsigned)atoi(argv[5]));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct connection *all = calloc((size_t)connections, sizeof *all);
    int poller = epoll_create1(0);
    for (int i = 0; i < connections; i++) {
        int one = 1;
        all[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (all[i].fd == -1 || connect(all[i].fd, (struct sockaddr *)&address, sizeof address) == -1)
            fail("connect");
        setsockopt(all[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        epoll_ctl(poller, EPOLL_CTL_ADD, all[i].fd, &event);
    }
    for (int i = 0; i < connections; i++)
        send_request(&all[i]);
    unsigned long done = 0;
    double start = now_s(), now = start;
    struct epoll_event events[MAX_EVENTS];
    while (now - start < seconds) {
        int ready = epoll_wait(poller, events, MAX_EVENTS, 5000);
        if (ready == 0) {
            errno = ETIMEDOUT;
            fail("no answer");
        }
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            ssize_t n = recv(c->fd, c->reply + c->got, sizeof c->reply - c->got, 0);
            if (n <= 0)
                fail("connection closed");
            c->got += (size_t)n;
            if (c->got < 9 || (c->reply[7] == function_code && c->got < reply_length))
                continue;
            if (c->got != reply_length || c->reply[7] != function_code || c->reply[0] != (uint8_t)(c->transaction >> 8) ||
                c->reply[1] != (uint8_t)c->transaction) {
                errno = EPROTO;
                fail("wrong answer");
            }
            unsigned long us = (unsigned long)((now_s() - c->sent_s) * 1e6);
            latency_us[us < BUCKETS ? us : BUCKETS - 1]++;
            done++;
            send_request(c);
        }
        now = now_s();
    }
    unsigned long seen = 0, p50 = 0, p99 = 0;
    for (unsigned long us = 0; us < BUCKETS; us++) {
        seen += latency_us[us];
        if (p50 == 0 && seen * 2 >= done)
            p50 = us;
        if (p99 == 0 && seen * 100 >= done * 99)
            p99 = us;
    }
    int answered = 0;
    for (int i = 0; i < connections; i++)
        answered += all[i].transaction > 1; /* its second request was sent, so its first was answered */
    printf("%lu %.6f %lu %lu %d\n", done, now - start, p50, p99, answered);
    return 0;
}
