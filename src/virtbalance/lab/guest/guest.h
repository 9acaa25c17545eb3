/* What the parts of the lab's guest program share.
 *
 * The program is the guest's only process (pid 1) plus, while it holds memory, one child:
 *   boot.c    mounts, kernel modules, swap: what an init does
 *   cpu.c     one thread bound to each virtual CPU, which counts
 *   memory.c  the child that takes memory; it may be killed for it, and pid 1 tells
 *   main.c    the channel: one command a line in, one JSON object a line out
 */
#ifndef VIRT_BALANCE_GUEST_H
#define VIRT_BALANCE_GUEST_H

#include <stddef.h>
#include <stdint.h>

#define MAX_CPUS 256

/* A growing text; a print beyond its end cuts it and sets `cut`. */
struct text {
    char *bytes;
    size_t size, length;
    int cut;
};
void text_add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Nanoseconds of the guest's monotonic clock. */
uint64_t now_ns(void);

/* boot.c */
void boot(void);
int boot_open_port(void); /* the channel's file descriptor; does not return without one */

/* cpu.c: every function that can fail returns NULL or what is wrong, in words. */
const char *cpu_start_all(void);
const char *cpu_command(char *words[], int count);
void cpu_report(struct text *out);

/* memory.c */
void memory_init(void);
const char *memory_allocate(char *words[], int count);
const char *memory_hold(void);
void memory_free(void);
void memory_reap(void);
void memory_report(struct text *out);

#endif
