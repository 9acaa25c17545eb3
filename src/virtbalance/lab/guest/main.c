/* The guest's only program: boots, then serves the channel, one command a line.
 *
 *   ID report                                          what was done so far
 *   ID cpu CPU|all LOAD [FIGURE FIGURE]                see cpu.c
 *   ID allocate LIMIT_KIB RATE_KIB_S FLOOR_KIB hold|free   see memory.c
 *   ID hold                                            stop taking memory, keep it
 *   ID free                                            give it all back
 *   ID poweroff                                        end the guest
 *
 * Every line is answered by one JSON object with the same ID, and "ok":true or "error":"why".
 * The host may go away and come back at any time: what could not be said to it is dropped.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MAX_WORDS 8
#define VERSION 1

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void text_add(struct text *text, const char *format, ...)
{
    va_list arguments;
    size_t room = text->size - text->length;

    va_start(arguments, format);
    int wanted = vsnprintf(text->bytes + text->length, room, format, arguments);
    va_end(arguments);
    if (wanted < 0 || (size_t)wanted >= room)
        text->cut = 1;
    else
        text->length += (size_t)wanted;
}

static int split(char *line, char *words[])
{
    int count = 0;
    char *rest = NULL;
    for (char *word = strtok_r(line, " \t\r", &rest); word; word = strtok_r(NULL, " \t\r", &rest)) {
        if (count == MAX_WORDS)
            return count + 1;
        words[count++] = word;
    }
    return count;
}

static const char *obey(char *words[], int count, struct text *out)
{
    if (!strcmp(words[0], "report") && count == 1) {
        text_add(out, ",\"version\":%d,\"monotonic_ns\":%llu", VERSION,
                 (unsigned long long)now_ns());
        cpu_report(out);
        memory_report(out);
        return NULL;
    }
    if (!strcmp(words[0], "cpu"))
        return cpu_command(words + 1, count - 1);
    if (!strcmp(words[0], "allocate"))
        return memory_allocate(words + 1, count - 1);
    if (!strcmp(words[0], "hold") && count == 1)
        return memory_hold();
    if (!strcmp(words[0], "free") && count == 1) {
        memory_free();
        return NULL;
    }
    if (!strcmp(words[0], "poweroff") && count == 1)
        reboot(RB_POWER_OFF);
    return "no such command";
}

/* False for an empty line, which has no answer: hosts begin with one, to end the half line that
 * one before them may have left. */
static int answer(char *line, struct text *out)
{
    char *words[MAX_WORDS], *end;
    int count = split(line, words);
    if (count == 0)
        return 0;
    unsigned long long id = strtoull(words[0], &end, 10);
    const char *error = "a line is: ID COMMAND, of at most 8 words";

    out->length = 0;
    out->cut = 0;
    text_add(out, "{\"id\":%llu", id);
    if (count >= 2 && count <= MAX_WORDS && !*end)
        error = obey(words + 1, count - 1, out);
    if (out->cut) {
        out->length = 0;
        text_add(out, "{\"id\":%llu", id);
        error = "the answer is too long";
    }
    if (error)
        text_add(out, ",\"error\":\"%s\"}\n", error);
    else
        text_add(out, ",\"ok\":true}\n");
    return 1;
}

#define HANG_UP_MS 300

/* Wait until the host takes more; 0 when it has gone away or does not read.
 *
 * What a host says may be here before the news that it is connected, so a line that seems dead is
 * given some time. */
static int host_listens(int port)
{
    for (int waited_ms = 0; waited_ms < HANG_UP_MS; waited_ms += 5) {
        struct pollfd wait = { .fd = port, .events = POLLOUT };
        if (poll(&wait, 1, 1000) <= 0)
            return 0;
        if (!(wait.revents & POLLHUP))
            return 1;
        usleep(5000);
    }
    return 0;
}

/* False if the host is gone. */
static int say(int port, const struct text *out)
{
    size_t said = 0;
    while (said < out->length) {
        if (!host_listens(port))
            return 0;
        ssize_t wrote = write(port, out->bytes + said, out->length - said);
        if (wrote < 0 && errno != EAGAIN && errno != EINTR)
            return 0;
        if (wrote > 0)
            said += (size_t)wrote;
    }
    return 1;
}

/* Forget what a host that is gone had still to say. */
static void drain(int port)
{
    char bytes[4096];
    while (read(port, bytes, sizeof bytes) > 0)
        ;
}

static void serve(int port)
{
    static char line[1024], bytes[65536];
    struct text out = { .bytes = bytes, .size = sizeof bytes };
    size_t length = 0;

    for (;;) {
        struct pollfd wait = { .fd = port, .events = POLLIN };
        poll(&wait, 1, 500);
        memory_reap();
        if (!(wait.revents & POLLIN))
            continue;
        ssize_t got = read(port, line + length, sizeof line - length);
        if (got <= 0) { /* nobody is there: the port is readable and has nothing */
            if (got == 0)
                length = 0;
            usleep(100000);
            continue;
        }
        length += (size_t)got;
        char *newline;
        while ((newline = memchr(line, '\n', length))) {
            *newline = 0;
            if (answer(line, &out) && !say(port, &out)) {
                drain(port);
                length = 0;
                break;
            }
            length -= (size_t)(newline + 1 - line);
            memmove(line, newline + 1, length);
        }
        if (length == sizeof line)
            length = 0; /* no command is that long */
    }
}

int main(void)
{
    boot();
    memory_init();
    const char *error = cpu_start_all();
    if (error) {
        fprintf(stderr, "virt-balance guest: %s\n", error);
        return 1;
    }
    /* The reporter must answer while the guest is out of memory and its CPUs are busy. */
    mlockall(MCL_CURRENT | MCL_FUTURE);
    setpriority(PRIO_PROCESS, 0, -10);
    serve(boot_open_port());
}
