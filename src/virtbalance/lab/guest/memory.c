/* Memory load: a child that takes 4 KiB a step, touches it, and holds it.
 *
 * It is a process of its own, and the first the kernel kills when memory runs out; pid 1 is
 * never killed, so the death is reported. Both see one shared record.
 *
 * How a load ended (`outcome`):
 *   none     there was none
 *   growing  it has not ended
 *   limit    the limit it was given is held
 *   floor    MemAvailable fell below the floor, so it stopped; the figures of that moment are kept
 *   held     it was told to stop
 *   freed    it was told to free
 *   killed   it died
 */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define PAGE_KIB 4
#define PAGES_PER_MIB 256

enum outcome { NONE, GROWING, LIMIT, FLOOR, HELD, FREED, KILLED };
static const char *const OUTCOME_NAMES[] = {
    "none", "growing", "limit", "floor", "held", "freed", "killed",
};

/* Of the guest's memory, all in KiB. `ballooned` is what the balloon holds at this moment. */
struct figures {
    uint64_t total, available, free, swap_total, swap_free, ballooned, oom_kills;
};

static struct shared {
    /* orders, written by pid 1 */
    atomic_uint_fast64_t limit_pages, floor_kib, rate_kib_s;
    atomic_int free_at_end, grow;
    /* findings, written by the child */
    atomic_int outcome;
    atomic_uint_fast64_t pages, peak_pages;
    struct figures at_end;
} *shared;

static pid_t child;
static unsigned long kills, failures;

static uint64_t field(const char *text, const char *name)
{
    const char *found = strstr(text, name);
    return found ? strtoull(found + strlen(name), NULL, 10) : 0;
}

/* Async-signal-safe on purpose (no stdio): the forked child uses it too. */
static void read_file(const char *path, char *bytes, size_t size)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    size_t length = 0;
    ssize_t got;
    while (file >= 0 && (got = read(file, bytes + length, size - 1 - length)) > 0)
        length += (size_t)got;
    bytes[length] = 0;
    if (file >= 0)
        close(file);
}

static struct figures figures_now(void)
{
    static char text[16384];
    struct figures now = { 0 };

    read_file("/proc/meminfo", text, sizeof text);
    now.total = field(text, "MemTotal:");
    now.available = field(text, "MemAvailable:");
    now.free = field(text, "MemFree:");
    now.swap_total = field(text, "SwapTotal:");
    now.swap_free = field(text, "SwapFree:");
    read_file("/proc/vmstat", text, sizeof text);
    now.ballooned =
        (field(text, "balloon_inflate ") - field(text, "balloon_deflate ")) * PAGE_KIB;
    now.oom_kills = field(text, "oom_kill ");
    return now;
}

static uint64_t available_kib(void)
{
    static char text[4096];
    read_file("/proc/meminfo", text, sizeof text);
    return field(text, "MemAvailable:");
}

static void end_growth(enum outcome outcome)
{
    shared->at_end = figures_now();
    atomic_store(&shared->grow, 0);
    atomic_store(&shared->outcome, outcome);
    if (atomic_load(&shared->free_at_end)) {
        atomic_store(&shared->pages, 0);
        _exit(0);
    }
}

/* Touch the pages that are due and look at the limit and, every MiB, at the floor. */
static void grow_to(char *region, uint64_t due_pages)
{
    uint64_t pages = atomic_load(&shared->pages);
    while (pages < due_pages && atomic_load(&shared->grow)) {
        if (pages >= atomic_load(&shared->limit_pages)) {
            end_growth(LIMIT);
            return;
        }
        if (pages % PAGES_PER_MIB == 0 && available_kib() < atomic_load(&shared->floor_kib)) {
            end_growth(FLOOR);
            return;
        }
        /* A number of its own in each page: nothing merges or compresses them away. */
        *(volatile uint64_t *)(region + pages * PAGE) = pages * 0x9e3779b97f4a7c15u + 1;
        atomic_store(&shared->pages, ++pages);
        if (pages > atomic_load(&shared->peak_pages))
            atomic_store(&shared->peak_pages, pages);
    }
}

static void take_memory(char *region)
{
    uint64_t owed = 0, before = now_ns(); /* owed: KiB x ns/s, so that no fraction is lost */

    for (;;) {
        struct timespec pause = { 0, 2000000 };
        if (!atomic_load(&shared->grow))
            pause.tv_nsec = 50000000;
        nanosleep(&pause, NULL);
        uint64_t now = now_ns(), elapsed = now - before;
        before = now;
        if (!atomic_load(&shared->grow)) {
            owed = 0;
            continue;
        }
        /* After a pause (a stopped guest) the rate goes on; the lost time is not made up for. */
        owed += (elapsed < 1000000000 ? elapsed : 1000000000) * atomic_load(&shared->rate_kib_s);
        uint64_t steps = owed / (PAGE_KIB * 1000000000ull);
        owed -= steps * PAGE_KIB * 1000000000ull;
        grow_to(region, atomic_load(&shared->pages) + steps);
    }
}

static void run_child(uint64_t most_bytes)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    prctl(PR_SET_TIMERSLACK, 1);
    setpriority(PRIO_PROCESS, 0, 0); /* pid 1 is above it; a load must not be */
    int adjust = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (adjust < 0 || write(adjust, "1000", 4) < 0)
        _exit(2);
    close(adjust);
    char *region = mmap(NULL, most_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (region == MAP_FAILED)
        _exit(3);
    take_memory(region);
}

void memory_init(void)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        exit(1);
}

/* allocate LIMIT_KIB RATE_KIB_S FLOOR_KIB hold|free
 * A limit of 0 is none but the floor. Given again while it runs, it changes the orders. */
const char *memory_allocate(char *words[], int count)
{
    uint64_t value[3];
    memory_reap();
    struct figures now = figures_now();
    uint64_t most_kib = (now.total + now.ballooned + now.swap_total) * 2;

    if (count != 4)
        return "allocate LIMIT_KIB RATE_KIB_S FLOOR_KIB hold|free";
    for (int i = 0; i < 3; i++) {
        char *end;
        errno = 0;
        value[i] = strtoull(words[i], &end, 10);
        if (words[i][0] < '0' || words[i][0] > '9' || *end || errno)
            return "not a whole number";
    }
    if (value[0] > most_kib || value[1] > 1u << 30 || !value[1])
        return "limit or rate out of range";
    if (strcmp(words[3], "hold") && strcmp(words[3], "free"))
        return "the last word must be hold or free";
    atomic_store(&shared->limit_pages, value[0] ? value[0] / PAGE_KIB : most_kib / PAGE_KIB);
    atomic_store(&shared->rate_kib_s, value[1]);
    atomic_store(&shared->floor_kib, value[2]);
    atomic_store(&shared->free_at_end, words[3][0] == 'f');
    atomic_store(&shared->outcome, GROWING);
    atomic_store(&shared->grow, 1);
    if (child)
        return NULL;
    atomic_store(&shared->pages, 0);
    atomic_store(&shared->peak_pages, 0);
    child = fork();
    if (child == 0) {
        run_child(most_kib * 1024);
        _exit(0);
    }
    if (child > 0)
        return NULL;
    child = 0;
    failures++;
    atomic_store(&shared->outcome, NONE);
    return "no process for the memory load";
}

const char *memory_hold(void)
{
    if (!child)
        return "no memory is held";
    if (atomic_exchange(&shared->grow, 0))
        atomic_store(&shared->outcome, HELD);
    return NULL;
}

void memory_free(void)
{
    if (!child)
        return;
    kill(child, SIGKILL);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
    child = 0;
    atomic_store(&shared->pages, 0);
    atomic_store(&shared->outcome, FREED);
}

/* Notice a child that ended by itself or was killed. */
void memory_reap(void)
{
    int status;
    pid_t ended;

    while ((ended = waitpid(-1, &status, WNOHANG)) > 0) {
        if (ended != child)
            continue;
        child = 0;
        atomic_store(&shared->pages, 0);
        if (WIFSIGNALED(status)) {
            kills++;
            shared->at_end = figures_now();
            atomic_store(&shared->outcome, KILLED);
        } else if (WEXITSTATUS(status)) {
            failures++;
            atomic_store(&shared->outcome, KILLED);
        } else if (atomic_load(&shared->outcome) == GROWING) {
            /* New orders reached it when it was on its way out. */
            atomic_store(&shared->outcome, FREED);
        }
    }
}

static void report_figures(struct text *out, const struct figures *figures)
{
    text_add(out, "\"total_kib\":%llu,\"available_kib\":%llu,\"free_kib\":%llu,"
             "\"swap_total_kib\":%llu,\"swap_free_kib\":%llu,\"ballooned_kib\":%llu,"
             "\"oom_kills\":%llu",
             (unsigned long long)figures->total, (unsigned long long)figures->available,
             (unsigned long long)figures->free, (unsigned long long)figures->swap_total,
             (unsigned long long)figures->swap_free, (unsigned long long)figures->ballooned,
             (unsigned long long)figures->oom_kills);
}

void memory_report(struct text *out)
{
    struct figures now = figures_now();
    text_add(out, ",\"memory\":{");
    report_figures(out, &now);
    text_add(out, ",\"outcome\":\"%s\",\"held_kib\":%llu,\"peak_kib\":%llu,\"kills\":%lu,"
             "\"failures\":%lu,\"at_end\":{",
             OUTCOME_NAMES[atomic_load(&shared->outcome)],
             (unsigned long long)atomic_load(&shared->pages) * PAGE_KIB,
             (unsigned long long)atomic_load(&shared->peak_pages) * PAGE_KIB, kills, failures);
    report_figures(out, &shared->at_end);
    text_add(out, "}}");
}
