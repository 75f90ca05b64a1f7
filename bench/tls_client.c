/* TLS load client: a new connection, a full handshake and one exchange for each operation, `clients` at a time.
 *
 * Usage: tls_client name=value ...   (see bench/tls_load.py, which builds and runs it)
 * Prints one line of JSON. `mode=hold` opens its connections, says how many stand, and keeps them until stdin closes.
 * Edge-triggered epoll and OpenSSL on the socket itself, so that the client is cheaper than the server it measures.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_BYTES 70000
#define EVENTS 512
#define HOLD_RAMP 64
enum state { FREE, CONNECTING, SHAKING, READING, HELD };
enum failure { CONNECT, HANDSHAKE, HUNG_UP, WRONG_ANSWER, TIMEOUT, KINDS };
static const char *const names[KINDS] = {"connect", "handshake", "hung up", "wrong answer", "timeout"};

struct client {
    int fd, state, got;
    SSL *ssl;
    double begins;
    uint32_t number;
    unsigned char *answer;
};

static int argument_count;
static char **arguments;
static SSL_CTX *context;
static struct sockaddr_in target;
static uint32_t first_source;
static int sources, epoll_fd, is_tvs, holds;
static unsigned char query[MAX_BYTES], wanted[MAX_BYTES];
static int query_length, wanted_length;
static long begun, done, done_in_time, failures[KINDS];
static double window_ends;
static float *latencies;
static char negotiated[200];

static double now(void) {
    struct timespec moment;
    clock_gettime(CLOCK_MONOTONIC, &moment);
    return moment.tv_sec + moment.tv_nsec / 1e9;
}

static const char *argument(const char *name, const char *otherwise) {
    size_t length = strlen(name);
    for (int i = 1; i < argument_count; i++)
        if (!strncmp(arguments[i], name, length) && arguments[i][length] == '=') return arguments[i] + length + 1;
    return otherwise;
}

static void stop(const char *what) {
    fprintf(stderr, "tls_client: %s\n", what);
    ERR_print_errors_fp(stderr);
    exit(3);
}

static int content(const char *path, unsigned char *into) {
    FILE *file = *path ? fopen(path, "rb") : NULL;
    if (!file) return 0;
    int length = (int)fread(into, 1, MAX_BYTES, file);
    fclose(file);
    return length;
}

static void make_context(void) {
    context = SSL_CTX_new(TLS_client_method());
    int version = strcmp(argument("version", ""), "1.3") ? TLS1_2_VERSION : TLS1_3_VERSION;
    SSL_CTX_set_min_proto_version(context, version);
    SSL_CTX_set_max_proto_version(context, version);
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL); /* the server's certificate is compared, not judged */
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
    SSL_CTX_set_read_ahead(context, 1);
    const char *cipher = argument("cipher", "");
    int taken = version == TLS1_3_VERSION ? SSL_CTX_set_ciphersuites(context, cipher)
                                          : SSL_CTX_set_cipher_list(context, cipher);
    if (!taken) stop("no such cipher");
    if (!SSL_CTX_set1_groups_list(context, argument("group", "X25519"))) stop("no such group");
    const char *certificate = argument("certificate", "");
    if (*certificate && (SSL_CTX_use_certificate_file(context, certificate, SSL_FILETYPE_PEM) != 1 ||
                         SSL_CTX_use_PrivateKey_file(context, argument("key", ""), SSL_FILETYPE_PEM) != 1))
        stop("client certificate or key");
}

static void release(struct client *one) {
    if (one->ssl) SSL_free(one->ssl);
    if (one->fd >= 0) close(one->fd);
    one->ssl = NULL;
    one->fd = -1;
    one->state = FREE;
}

static void fail(struct client *one, enum failure kind) {
    failures[kind]++;
    ERR_clear_error();
    release(one);
}

static void begin(struct client *one) {
    struct sockaddr_in source = {.sin_family = AF_INET};
    int on = 1;
    one->number = (uint32_t)++begun;
    one->begins = now();
    one->got = 0;
    one->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (one->fd < 0) stop("no more sockets");
    setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (sources) {
        setsockopt(one->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        source.sin_addr.s_addr = htonl(first_source + (uint32_t)(begun % sources));
        if (bind(one->fd, (struct sockaddr *)&source, sizeof source)) stop("source address");
    }
    one->state = CONNECTING;
    if (connect(one->fd, (struct sockaddr *)&target, sizeof target) && errno != EINPROGRESS) {
        fail(one, CONNECT);
        return;
    }
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = one};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, one->fd, &event)) stop("epoll");
}

static int is_right(struct client *one) {
    if (one->got != wanted_length) return 0;
    if (!is_tvs) return !memcmp(one->answer, wanted, (size_t)wanted_length);
    uint32_t session = htonl(one->number); /* all but the session number is known beforehand */
    return !memcmp(one->answer, wanted, 4) && !memcmp(one->answer + 4, &session, 4) &&
           !memcmp(one->answer + 8, wanted + 8, (size_t)wanted_length - 8);
}

static void finish(struct client *one) {
    if (!is_right(one)) {
        fail(one, WRONG_ANSWER);
        return;
    }
    double ends = now();
    latencies[done++] = (float)(ends - one->begins);
    if (ends <= window_ends) done_in_time++;
    SSL_shutdown(one->ssl);
    release(one);
}

static void note_negotiated(SSL *ssl) {
    if (*negotiated) return;
    int group = SSL_get_negotiated_group(ssl);
    const char *name = group > 0 && !(group & TLSEXT_nid_unknown) ? OBJ_nid2sn(group) : "RSA";
    snprintf(negotiated, sizeof negotiated, "%s %s %s", SSL_get_version(ssl), SSL_get_cipher_name(ssl),
             SSL_version(ssl) == TLS1_2_VERSION && !strstr(SSL_get_cipher_name(ssl), "DHE") ? "RSA" : name);
}

static int ask(struct client *one) { /* the query's session is this operation's number; 0: failed */
    note_negotiated(one->ssl);
    if (holds) {
        one->state = HELD;
        done++;
        return 1;
    }
    one->state = READING;
    if (query_length) {
        uint32_t session = htonl(one->number);
        if (is_tvs) memcpy(query + 4, &session, 4);
        if (SSL_write(one->ssl, query, query_length) != query_length) return 0;
    }
    return 1;
}

static void step(struct client *one) {
    if (one->state == CONNECTING) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(one->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error) return fail(one, CONNECT);
        one->ssl = SSL_new(context);
        SSL_set_fd(one->ssl, one->fd);
        SSL_set_connect_state(one->ssl);
        one->state = SHAKING;
    }
    if (one->state == SHAKING) {
        int result = SSL_do_handshake(one->ssl);
        if (result != 1) {
            int why = SSL_get_error(one->ssl, result);
            if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) fail(one, HANDSHAKE);
            return;
        }
        if (!ask(one)) return fail(one, HUNG_UP);
    }
    while (one->state == READING) {
        int result = SSL_read(one->ssl, one->answer + one->got, MAX_BYTES - one->got);
        if (result <= 0) {
            int why = SSL_get_error(one->ssl, result);
            if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) fail(one, HUNG_UP);
            return;
        }
        one->got += result;
        /* a TVS answer that says it is shorter than the wanted one is all that comes */
        int says = is_tvs && one->got >= 10 ? 10 + (one->answer[8] << 8 | one->answer[9]) : wanted_length;
        if (one->got >= says || one->got >= wanted_length) return finish(one);
    }
    if (one->state == HELD) { /* keeps what comes after the handshake out of the way; an end is a failure */
        unsigned char byte;
        int result = SSL_read(one->ssl, &byte, 1);
        if (result <= 0 && SSL_get_error(one->ssl, result) != SSL_ERROR_WANT_READ) {
            done--;
            fail(one, HUNG_UP);
        }
    }
}

static void report(double wall) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("{\"done\": %ld, \"done_in_time\": %ld, \"wall_s\": %.6f, \"cpu_s\": %.6f, \"negotiated\": \"%s\", "
           "\"failures\": {", done, done_in_time, wall, cpu, negotiated);
    const char *comma = "";
    for (int i = 0; i < KINDS; i++)
        if (failures[i]) {
            printf("%s\"%s\": %ld", comma, names[i], failures[i]);
            comma = ", ";
        }
    printf("}, \"latencies_s\": [");
    for (long i = 0; !holds && i < done; i++) printf("%s%.6f", i ? "," : "", latencies[i]);
    printf("]}\n");
    fflush(stdout);
}

int main(int count, char **given) {
    argument_count = count;
    arguments = given;
    int clients = atoi(argument("clients", "32"));
    long operations = atol(argument("operations", "20000"));
    double seconds = atof(argument("seconds", "1.5")), timeout = atof(argument("timeout", "20"));
    holds = !strcmp(argument("mode", "load"), "hold");
    is_tvs = !strcmp(argument("answers", "tvs"), "tvs");
    query_length = content(argument("query", ""), query);
    wanted_length = content(argument("wanted", ""), wanted);
    if (!wanted_length && !holds) stop("what is wanted?");
    target.sin_family = AF_INET;
    target.sin_port = htons((uint16_t)atoi(argument("port", "0")));
    if (inet_pton(AF_INET, argument("address", ""), &target.sin_addr) != 1) stop("address");
    struct in_addr source;
    sources = atoi(argument("sources", "0"));
    if (sources && inet_pton(AF_INET, argument("source", ""), &source) != 1) stop("source");
    if (sources) first_source = ntohl(source.s_addr);
    if (holds) operations = clients;
    struct client *all = calloc((size_t)clients, sizeof *all);
    latencies = calloc((size_t)operations + 1, sizeof *latencies);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    make_context();
    unsigned char *shared = malloc(MAX_BYTES);
    for (int i = 0; i < clients; i++) {
        all[i].fd = -1;
        all[i].answer = holds ? shared : malloc((size_t)MAX_BYTES);
    }
    struct epoll_event events[EVENTS];
    double starts = now(), checked = starts;
    window_ends = starts + seconds;
    for (;;) {
        double moment = now();
        int busy = 0, shaking = 0;
        for (int i = 0; i < clients; i++) shaking += all[i].state != FREE && all[i].state != HELD;
        for (int i = 0; i < clients; i++) {
            if (all[i].state == FREE && begun < operations && (holds || moment < window_ends) &&
                (!holds || shaking < HOLD_RAMP)) {
                begin(&all[i]);
                shaking++;
            }
            busy += all[i].state != FREE && all[i].state != HELD;
        }
        if (!busy) break;
        int ready = epoll_wait(epoll_fd, events, EVENTS, 100);
        for (int i = 0; i < ready; i++) step(events[i].data.ptr);
        moment = now();
        if (moment - checked > 0.1) {
            checked = moment;
            for (int i = 0; i < clients; i++)
                if (all[i].state != FREE && all[i].state != HELD && moment - all[i].begins > timeout)
                    fail(&all[i], TIMEOUT);
        }
    }
    report(now() - starts);
    char byte;
    while (holds && read(0, &byte, 1) > 0) continue;
    return 0;
}
