/* What an init does, as far as this guest needs it: mounts, modules, swap, the channel's port. */
#define _GNU_SOURCE
#include "guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PORT_NAME "org.virtbalance.lab.0"
#define PORTS "/sys/class/virtio-ports"
#define PAGE 4096

/* The kernel panics when pid 1 ends, and `panic=-1` then ends the guest: the host sees it die,
 * with the reason on its serial console. */
static void fail(const char *what)
{
    fprintf(stderr, "virt-balance guest: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void mount_at(const char *type, const char *where)
{
    mkdir(where, 0755);
    if (mount(type, where, type, 0, NULL) && errno != EBUSY)
        fail(where);
}

static void load_module(const char *path)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        fail(path);
    if (syscall(SYS_finit_module, file, "", 0) && errno != EEXIST)
        fail(path);
    close(file);
}

static int not_hidden(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* Load every module in a folder in the order of their names: the host numbers them. */
static void load_modules(const char *folder)
{
    struct dirent **names;
    int count = scandir(folder, &names, not_hidden, alphasort);
    for (int i = 0; i < count; i++) {
        char path[300];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
        load_module(path);
        free(names[i]);
    }
    if (count >= 0)
        free(names);
}

/* The kernel hands parameters it does not know, like zram_mib=64, to init's environment. */
static long parameter(const char *name)
{
    const char *value = getenv(name);
    return value ? atol(value) : 0;
}

static void write_text(const char *path, const char *text)
{
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0 || write(file, text, strlen(text)) < 0)
        fail(path);
    close(file);
}

/* Swap on compressed memory. The header is what mkswap writes: version, last page, signature. */
static void swap_on_zram(long mib)
{
    char size[32];
    static char header[PAGE];
    uint32_t *info = (uint32_t *)(header + 1024);

    load_modules("/modules/zram");
    snprintf(size, sizeof size, "%ldM", mib);
    write_text("/sys/block/zram0/disksize", size);
    info[0] = 1;
    info[1] = (uint32_t)(mib * 256 - 1);
    memcpy(header + PAGE - 10, "SWAPSPACE2", 10);
    int device = open("/dev/zram0", O_WRONLY | O_CLOEXEC);
    if (device < 0 || write(device, header, PAGE) != PAGE)
        fail("/dev/zram0");
    close(device);
    if (swapon("/dev/zram0", 0))
        fail("swapon");
}

void boot(void)
{
    mount_at("devtmpfs", "/dev");
    int console = open("/dev/console", O_RDWR);
    if (console >= 0) {
        dup2(console, STDOUT_FILENO);
        dup2(console, STDERR_FILENO);
    }
    mount_at("proc", "/proc");
    mount_at("sysfs", "/sys");
    load_modules("/modules/boot");
    if (parameter("balloon"))
        load_modules("/modules/balloon");
    if (parameter("zram_mib") > 0)
        swap_on_zram(parameter("zram_mib"));
}

static int port_has_our_name(const char *port)
{
    char path[300], name[64] = "";
    snprintf(path, sizeof path, PORTS "/%s/name", port);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    ssize_t length = read(file, name, sizeof name - 1);
    close(file);
    return length > 0 && strncmp(name, PORT_NAME, strlen(PORT_NAME)) == 0;
}

int boot_open_port(void)
{
    /* The port appears some time after its driver was loaded. */
    for (int tries = 0; tries < 6000; tries++) {
        DIR *ports = opendir(PORTS);
        struct dirent *entry;
        while (ports && (entry = readdir(ports))) {
            if (!not_hidden(entry) || !port_has_our_name(entry->d_name))
                continue;
            char path[300];
            snprintf(path, sizeof path, "/dev/%s", entry->d_name);
            int port = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
            if (port < 0)
                fail(path);
            closedir(ports);
            return port;
        }
        if (ports)
            closedir(ports);
        usleep(10000);
    }
    errno = ENODEV;
    fail(PORT_NAME);
    return -1;
}
