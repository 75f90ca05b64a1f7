/* Load for file servers: TFTP or HTTP clients on one thread, every byte compared with the file as it should be.
 *
 *   file_client tftp|http ADDRESS PORT NAME FILE BLKSIZE CLIENTS OPERATIONS SECONDS
 *
 * (see bench/file_load.py, which builds and runs it)
 * Keeps CLIENTS operations under way, each on a socket (UDP: a transfer ID) of its own, until OPERATIONS were begun or
 * SECONDS are over; what was begun is ended. With as many operations as clients it is a herd: all ask at the same
 * instant. TFTP is lock-step (RFC 1350; blksize, RFC 2348, for all sizes but 512) and asks again after 1, 2, 4, 8, 16 s
 * of silence. Prints one line of JSON: counts, CPU seconds of its own, every latency in microseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { REQUEST = 1, DATA = 3, ACK = 4, ERROR = 5, OACK = 6 };
enum { MAX_REPEATS = 5, TURN_MS = 20, EVENTS = 256, TCP_SILENCE_S = 30 };
enum failure { NONE, SILENCE, WRONG_BYTES, ERROR_PACKET, NETWORK, FAILURES };

static const char *const FAILURE_NAMES[FAILURES] = {"", "no answer", "wrong bytes", "error packet", "network"};

struct client {
    int socket;
    int connected;       /* to the transfer ID that answered first: the kernel drops everything else */
    int agreed;          /* TFTP: the OACK has come; HTTP: the head has */
    unsigned block;      /* the last one that came */
    size_t received;     /* bytes of the file, or of the HTTP answer */
    double begun, deadline;
    unsigned repeats;    /* requests or acknowledgements sent again without an answer */
    int under_way;
};

static struct sockaddr_in server;
static int is_http, with_option;
static unsigned char *content, request[2048], expected_oack[64];
static size_t content_size, request_size, oack_size, block_size;
static long begun, done, done_in_time, retransmissions, lost_requests, repeats, failures[FAILURES], operations, under_way;
static uint32_t *latencies_us;
static double ends;
static int poll_set;

static void die(const char *what) { perror(what); exit(1); }

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void read_content(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    fseek(file, 0, SEEK_END);
    content_size = (size_t)ftell(file);
    rewind(file);
    content = malloc(content_size + 1);
    if (!content || fread(content, 1, content_size, file) != content_size) die(path);
    fclose(file);
}

static void write_requests(const char *name) {
    if (is_http) {
        request_size = (size_t)snprintf((char *)request, sizeof request, "GET /%s HTTP/1.1\r\nHost:%s:%d\r\n\r\n", name,
                                        inet_ntoa(server.sin_addr), ntohs(server.sin_port));
        return;
    }
    request_size = 2;
    request[1] = REQUEST;
    request_size += (size_t)sprintf((char *)request + request_size, "%.400s", name) + 1;
    request_size += (size_t)sprintf((char *)request + request_size, "octet") + 1;
    if (!with_option) return;
    unsigned char *option = request + request_size;
    size_t length = (size_t)sprintf((char *)option, "blksize") + 1;
    length += (size_t)sprintf((char *)option + length, "%zu", block_size) + 1;
    request_size += length;
    expected_oack[1] = OACK;
    memcpy(expected_oack + 2, option, length);
    oack_size = length + 2;
}

static void end(struct client *client, enum failure failure) {
    close(client->socket);
    client->under_way = 0;
    under_way--;
    if (failure != NONE) {
        failures[failure]++;
        return;
    }
    double now = now_s();
    latencies_us[done++] = (uint32_t)((now - client->begun) * 1e6);
    done_in_time += now < ends;
}

static void acknowledge(struct client *client) {
    unsigned char packet[4] = {0, ACK, (unsigned char)(client->block >> 8), (unsigned char)client->block};
    send(client->socket, packet, sizeof packet, 0);
}

static void open_client(struct client *client) {
    memset(client, 0, sizeof *client);
    client->socket = socket(AF_INET, (is_http ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK, 0);
    if (client->socket < 0) die("socket");
    client->under_way = 1;
    under_way++;
    begun++;
}

static void ask(struct client *client) {
    client->begun = now_s();
    client->deadline = client->begun + (is_http ? TCP_SILENCE_S : 1);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
    if (!is_http) {
        sendto(client->socket, request, request_size, 0, (struct sockaddr *)&server, sizeof server);
    } else {
        if (connect(client->socket, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS) {
            end(client, NETWORK);
            return;
        }
        /* on loopback the connection stands when connect returns, unless the server's queue is full */
        if (send(client->socket, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size)
            event.events = EPOLLOUT;
    }
    if (epoll_ctl(poll_set, EPOLL_CTL_ADD, client->socket, &event)) die("epoll_ctl");
}

static void take_data(struct client *client, const unsigned char *packet, size_t size) {
    unsigned number = (unsigned)packet[2] << 8 | packet[3];
    if (number == (client->block & 0xFFFF) && client->block) {
        repeats++;  /* sent again by the server: it is not acknowledged twice, or traffic would double */
        return;
    }
    size_t left = content_size - client->received, want = left < block_size ? left : block_size;
    if (number != ((client->block + 1) & 0xFFFF) || size - 4 != want ||
        memcmp(packet + 4, content + client->received, want)) {
        end(client, WRONG_BYTES);
        return;
    }
    client->block++;
    client->received += want;
    client->repeats = 0;
    acknowledge(client);
    if (want < block_size)
        end(client, NONE);
    else
        client->deadline = now_s() + 1;
}

static void take_datagram(struct client *client) {
    static unsigned char packet[65536];
    struct sockaddr_in peer;
    socklen_t length = sizeof peer;
    ssize_t size = client->connected ? recv(client->socket, packet, sizeof packet, 0)
                                     : recvfrom(client->socket, packet, sizeof packet, 0, (struct sockaddr *)&peer, &length);
    if (size < 0) {
        if (errno != EAGAIN) end(client, NETWORK);
        return;
    }
    if (!client->connected) {
        connect(client->socket, (struct sockaddr *)&peer, length);
        client->connected = 1;
    }
    if (size >= 4 && packet[1] == DATA && (!with_option || client->agreed))
        take_data(client, packet, (size_t)size);
    else if (with_option && packet[1] == OACK && (size_t)size == oack_size && !memcmp(packet, expected_oack, oack_size)) {
        if (client->agreed) { repeats++; return; }
        client->agreed = 1;
        client->repeats = 0;
        client->deadline = now_s() + 1;
        acknowledge(client);
    } else
        end(client, size >= 2 && packet[1] == ERROR ? ERROR_PACKET : WRONG_BYTES);
}

static void take_stream(struct client *client) {
    /* the head is short: the first piece holds it whole, or the answer counts as wrong */
    static unsigned char piece[65536];
    ssize_t size = recv(client->socket, piece, sizeof piece, 0);
    if (size < 0) {
        if (errno != EAGAIN) end(client, NETWORK);
        return;
    }
    if (size == 0) {
        end(client, client->agreed && client->received == content_size ? NONE : WRONG_BYTES);
        return;
    }
    unsigned char *body = piece;
    if (!client->agreed) {
        unsigned char *blank = memmem(piece, (size_t)size, "\r\n\r\n", 4);
        if (!blank || size < 13 || memcmp(piece, "HTTP/1.1 200 ", 13)) { end(client, WRONG_BYTES); return; }
        client->agreed = 1;
        body = blank + 4;
    }
    size_t length = (size_t)(piece + size - body);
    if (length > content_size - client->received || memcmp(body, content + client->received, length)) {
        end(client, WRONG_BYTES);
        return;
    }
    client->received += length;
}

static void silent(struct client *client, double now) {
    if (is_http || client->repeats == MAX_REPEATS) {
        end(client, SILENCE);
        return;
    }
    client->repeats++;
    retransmissions++;
    client->deadline = now + (1 << client->repeats);
    if (client->connected) {
        acknowledge(client);
    } else {
        lost_requests++;
        sendto(client->socket, request, request_size, 0, (struct sockaddr *)&server, sizeof server);
    }
}

static void handle(struct epoll_event *event) {
    struct client *client = event->data.ptr;
    if (!client->under_way) return;
    if (event->events & EPOLLOUT) {
        event->events = EPOLLIN;
        if (send(client->socket, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size)
            end(client, NETWORK);
        else
            epoll_ctl(poll_set, EPOLL_CTL_MOD, client->socket, event);
    } else if (is_http)
        take_stream(client);
    else
        take_datagram(client);
}

static void run(struct client *clients, long count) {
    struct epoll_event events[EVENTS];
    double looked = now_s();
    ends += looked;
    for (long i = 0; i < count; i++) open_client(&clients[i]);
    for (long i = 0; i < count; i++) ask(&clients[i]);
    while (under_way) {
        int ready = epoll_wait(poll_set, events, EVENTS, TURN_MS);
        for (int i = 0; i < ready; i++) {
            struct client *client = events[i].data.ptr;
            handle(&events[i]);
            if (!client->under_way && begun < operations && now_s() < ends) {
                open_client(client);
                ask(client);
            }
        }
        double now = now_s();
        if (now - looked < TURN_MS / 1000.0) continue;
        looked = now;
        for (long i = 0; i < count; i++)
            if (clients[i].under_way && clients[i].deadline < now) silent(&clients[i], now);
    }
}

static void report(double wall_s) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu_s = used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("{\"done\":%ld,\"done_in_time\":%ld,\"wall_s\":%.6f,\"cpu_s\":%.6f,\"retransmissions\":%ld,\"lost_requests\":%ld,\"repeats\":%ld,"
           "\"failures\":{", done, done_in_time, wall_s, cpu_s, retransmissions, lost_requests, repeats);
    const char *comma = "";
    for (int i = 1; i < FAILURES; i++)
        if (failures[i]) {
            printf("%s\"%s\":%ld", comma, FAILURE_NAMES[i], failures[i]);
            comma = ",";
        }
    printf("},\"latencies_us\":[");
    for (long i = 0; i < done; i++) printf(i ? ",%u" : "%u", latencies_us[i]);
    printf("]}\n");
}

int main(int count, char **arguments) {
    if (count != 10) {
        fprintf(stderr, "usage: file_client tftp|http ADDRESS PORT NAME FILE BLKSIZE CLIENTS OPERATIONS SECONDS\n");
        return 2;
    }
    is_http = !strcmp(arguments[1], "http");
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)atoi(arguments[3]));
    if (!inet_aton(arguments[2], &server.sin_addr)) die(arguments[2]);
    read_content(arguments[5]);
    block_size = (size_t)atol(arguments[6]);
    with_option = block_size != 512;
    long clients = atol(arguments[7]);
    operations = atol(arguments[8]);
    ends = atof(arguments[9]);
    if (clients > operations) clients = operations;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    write_requests(arguments[4]);
    latencies_us = malloc((size_t)operations * sizeof *latencies_us);
    struct client *all = calloc((size_t)clients, sizeof *all);
    poll_set = epoll_create1(0);
    if (!latencies_us || !all || poll_set < 0) die("set-up");
    double started = now_s();
    run(all, clients);
    report(now_s() - started);
    return 0;
}
