/* CPU load: one thread bound to each virtual CPU, which counts.
 *
 * The unit of work is one turn of count(); every kind of load does the same turns, so their sums
 * compare, and the sum is the truth about what this guest got done.
 *
 *   off                    sleeps until told otherwise
 *   hog                    counts without a pause
 *   duty PPM PERIOD_US     counts for a share of every period, by the clock: what a vCPU did not
 *                          get in time is lost, as it is for work with a deadline
 *   count N SLEEP_US       counts to N, sleeps, for ever: work waits until it is done
 *   burst BUSY_US IDLE_US  counts for BUSY_US by the clock, then sleeps IDLE_US
 */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum kind { OFF, HOG, DUTY, COUNT, BURST };
static const char *const KIND_NAMES[] = { "off", "hog", "duty", "count", "burst" };
static const int KIND_FIGURES[] = { 0, 0, 2, 2, 2 };

struct load {
    enum kind kind;
    uint64_t first, second; /* the two figures, as above */
};

/* Wake-up latency in buckets: 4 to each doubling, from 1 us; the last takes all the rest. */
#define BUCKETS 96

struct worker {
    pthread_t thread;
    int cpu;
    pthread_mutex_t lock; /* guards `load`; `generation` tells the thread that it changed */
    pthread_cond_t changed;
    struct load load;
    atomic_uint generation;
    atomic_uint_fast64_t iterations;
    atomic_uint wakes[BUCKETS];
    unsigned wakes_reported[BUCKETS];
};

static struct worker *workers[MAX_CPUS];

#define CHUNK 5000 /* turns between two looks at the clock: some 20 us without KVM */
#define LONG_CHUNK 50000 /* turns between two looks for a new command */

static void count(struct worker *worker, uint64_t turns)
{
    for (volatile uint64_t i = 0; i < turns; i++)
        ;
    atomic_fetch_add_explicit(&worker->iterations, turns, memory_order_relaxed);
}

static int bucket_of(uint64_t late_ns)
{
    uint64_t us = late_ns / 1000;
    if (us < 4)
        return (int)us;
    int top = 63 - __builtin_clzll(us);
    int bucket = (top - 1) * 4 + (int)((us >> (top - 2)) & 3);
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

/* The lower end of a bucket, the inverse of bucket_of. */
static uint64_t bucket_us(int bucket)
{
    if (bucket < 4)
        return (uint64_t)bucket;
    return (4 + (uint64_t)bucket % 4) << (bucket / 4 - 1);
}

/* Sleep to a time and note how late the wake-up was; false if the load changed meanwhile.
 * Long sleeps are cut in pieces so that a new command is not kept waiting. */
static int sleep_until(struct worker *worker, uint64_t end_ns, unsigned generation)
{
    for (;;) {
        uint64_t start = now_ns();
        uint64_t piece = end_ns > start + 100000000 ? start + 100000000 : end_ns;
        struct timespec until = { (time_t)(piece / 1000000000), (long)(piece % 1000000000) };
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
            ;
        if (piece > start) {
            uint64_t now = now_ns();
            atomic_fetch_add(&worker->wakes[bucket_of(now > piece ? now - piece : 0)], 1);
        }
        if (atomic_load(&worker->generation) != generation)
            return 0;
        if (piece == end_ns)
            return 1;
    }
}

static int count_until(struct worker *worker, uint64_t end_ns, unsigned generation)
{
    while (now_ns() < end_ns) {
        count(worker, CHUNK);
        if (atomic_load_explicit(&worker->generation, memory_order_relaxed) != generation)
            return 0;
    }
    return 1;
}

static void run_hog(struct worker *worker, unsigned generation)
{
    while (atomic_load_explicit(&worker->generation, memory_order_relaxed) == generation)
        count(worker, LONG_CHUNK);
}

static void run_duty(struct worker *worker, const struct load *load, unsigned generation)
{
    uint64_t period_ns = load->second * 1000;
    uint64_t busy_ns = period_ns * load->first / 1000000;
    uint64_t start = now_ns();

    for (;;) {
        if (!count_until(worker, start + busy_ns, generation))
            return;
        start += period_ns;
        uint64_t now = now_ns();
        if (now > start) /* periods that were missed are not made up for */
            start = now - (now - start) % period_ns;
        if (!sleep_until(worker, start, generation))
            return;
    }
}

static void run_count(struct worker *worker, const struct load *load, unsigned generation)
{
    do {
        for (uint64_t left = load->first; left;) {
            uint64_t turns = left < LONG_CHUNK ? left : LONG_CHUNK;
            count(worker, turns);
            left -= turns;
            if (atomic_load_explicit(&worker->generation, memory_order_relaxed) != generation)
                return;
        }
    } while (sleep_until(worker, now_ns() + load->second * 1000, generation));
}

static void run_burst(struct worker *worker, const struct load *load, unsigned generation)
{
    while (count_until(worker, now_ns() + load->first * 1000, generation)
           && sleep_until(worker, now_ns() + load->second * 1000, generation))
        ;
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    unsigned seen = 0;

    setpriority(PRIO_PROCESS, 0, 0); /* pid 1 is above it; a load must not be */
    prctl(PR_SET_TIMERSLACK, 1);
    for (;;) {
        pthread_mutex_lock(&worker->lock);
        while (worker->load.kind == OFF && atomic_load(&worker->generation) == seen)
            pthread_cond_wait(&worker->changed, &worker->lock);
        struct load load = worker->load;
        seen = atomic_load(&worker->generation);
        pthread_mutex_unlock(&worker->lock);

        switch (load.kind) {
        case OFF: break;
        case HOG: run_hog(worker, seen); break;
        case DUTY: run_duty(worker, &load, seen); break;
        case COUNT: run_count(worker, &load, seen); break;
        case BURST: run_burst(worker, &load, seen); break;
        }
    }
    return NULL;
}

/* A CPU that was hot-plugged is offline until somebody says so. CPU 0 has no such file. */
static void bring_online(int cpu)
{
    char path[80];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/online", cpu);
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return;
    if (write(file, "1", 1) < 0) {
        /* The bind below fails then, and says so. */
    }
    close(file);
}

static const char *start_worker(int cpu)
{
    struct worker *worker = calloc(1, sizeof *worker);
    pthread_attr_t attributes;
    cpu_set_t set;

    if (!worker)
        return "no memory for a worker";
    worker->cpu = cpu;
    pthread_mutex_init(&worker->lock, NULL);
    pthread_cond_init(&worker->changed, NULL);
    bring_online(cpu);
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 * 1024);
    pthread_attr_setaffinity_np(&attributes, sizeof set, &set);
    if (pthread_create(&worker->thread, &attributes, work, worker)) {
        free(worker);
        return "no such CPU";
    }
    workers[cpu] = worker;
    return NULL;
}

const char *cpu_start_all(void)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    for (int cpu = 0; cpu < online && cpu < MAX_CPUS; cpu++) {
        const char *error = start_worker(cpu);
        if (error)
            return error;
    }
    return NULL;
}

static int figure(const char *word, uint64_t *value)
{
    char *end;
    errno = 0;
    *value = strtoull(word, &end, 10);
    return word[0] >= '0' && word[0] <= '9' && !*end && !errno;
}

static const char *parse_load(char *words[], int count, struct load *load)
{
    for (int kind = OFF; kind <= BURST; kind++) {
        if (strcmp(words[0], KIND_NAMES[kind]))
            continue;
        load->kind = kind;
        if (count - 1 != KIND_FIGURES[kind])
            return "wrong number of figures for this load";
        if (count > 1 && (!figure(words[1], &load->first) || !figure(words[2], &load->second)))
            return "not a whole number";
        if (load->first > 1000000000 || load->second > 1000000000)
            return "figure too large";
        if (kind == DUTY && (load->first > 1000000 || load->second < 1000))
            return "duty: 0 to 1000000 ppm of a period of 1000 us or more";
        if ((kind == COUNT || kind == BURST) && !load->first)
            return "the first figure must not be 0";
        return NULL;
    }
    return "no such load";
}

/* cpu CPU|all LOAD [FIGURE FIGURE] */
const char *cpu_command(char *words[], int count)
{
    struct load load = { 0 };
    uint64_t first = 0, last = MAX_CPUS - 1;
    int all = count > 0 && !strcmp(words[0], "all");

    if (count < 2)
        return "cpu CPU|all LOAD [FIGURE FIGURE]";
    if (!all) {
        if (!figure(words[0], &first) || first >= MAX_CPUS)
            return "no such CPU";
        last = first;
    }
    const char *error = parse_load(words + 1, count - 1, &load);
    if (!error && !all && !workers[first])
        error = start_worker((int)first);
    if (error)
        return error;
    for (uint64_t cpu = first; cpu <= last; cpu++) {
        struct worker *worker = workers[cpu];
        if (!worker)
            continue;
        pthread_mutex_lock(&worker->lock);
        worker->load = load;
        atomic_fetch_add(&worker->generation, 1);
        pthread_cond_signal(&worker->changed);
        pthread_mutex_unlock(&worker->lock);
    }
    return NULL;
}

static uint64_t quantile_us(const unsigned *wakes, unsigned long total, double share)
{
    unsigned long below = 0;
    for (int bucket = 0; bucket < BUCKETS; bucket++) {
        below += wakes[bucket];
        if (below && (double)below >= share * (double)total)
            return bucket_us(bucket);
    }
    return 0;
}

static void report_worker(struct worker *worker, struct text *out)
{
    unsigned wakes[BUCKETS];
    unsigned long total = 0;

    for (int bucket = 0; bucket < BUCKETS; bucket++) {
        unsigned seen = atomic_load(&worker->wakes[bucket]);
        wakes[bucket] = seen - worker->wakes_reported[bucket];
        worker->wakes_reported[bucket] = seen;
        total += wakes[bucket];
    }
    text_add(out, "{\"cpu\":%d,\"load\":\"%s\",\"iterations\":%llu,\"wakes\":%lu,"
             "\"wake_p50_us\":%llu,\"wake_p99_us\":%llu}",
             worker->cpu, KIND_NAMES[worker->load.kind],
             (unsigned long long)atomic_load(&worker->iterations), total,
             (unsigned long long)quantile_us(wakes, total, 0.50),
             (unsigned long long)quantile_us(wakes, total, 0.99));
}

void cpu_report(struct text *out)
{
    const char *separator = "";
    text_add(out, ",\"cpus\":[");
    for (int cpu = 0; cpu < MAX_CPUS; cpu++) {
        if (!workers[cpu])
            continue;
        text_add(out, "%s", separator);
        report_worker(workers[cpu], out);
        separator = ",";
    }
    text_add(out, "]");
}
