/* A disk with a write cache that is lost with its process: loaded before the C library (LD_PRELOAD), this keeps what
 * is written to the file LOCKSTEP_SHIM_IMAGE in memory until the file is synced. Of each write, sectors that
 * LOCKSTEP_SHIM_SEED draws reach the file at once: so a process that is killed leaves writes that are missing, torn,
 * and done before earlier ones.
 *
 * The file LOCKSTEP_SHIM_CONTROL may say "lie": nothing of a write reaches the file, and a sync does nothing; or "fail": a sync fails; "tear": a write leaves
 * its first half in the file, a sync does not come back, and LOCKSTEP_SHIM_IMAGE.torn is made.
 *
 * Files are read and written here by a descriptor without O_DIRECT, so that sectors and memory need no alignment. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SECTOR_BYTES = 512 };

struct held {
    struct held *next;
    off64_t at;
    size_t length;
    unsigned char bytes[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct held *first, **last = &first;
static int file = -1;
static uint64_t state;

static ssize_t (*real_read)(int, void *, size_t, off64_t);
static ssize_t (*real_write)(int, const void *, size_t, off64_t);
static int (*real_sync)(int);

/* xorshift64 */
static int is_drawn(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state >> 40 & 1;
}

static int is_image(int descriptor)
{
    char name[64], path[PATH_MAX + 1] = "";
    const char *image = getenv("LOCKSTEP_SHIM_IMAGE");
    snprintf(name, sizeof name, "/proc/self/fd/%d", descriptor);
    return image && readlink(name, path, PATH_MAX) > 0 && strcmp(path, image) == 0;
}

/* With the lock held. */
static void begin(void)
{
    if (file >= 0)
        return;
    real_read = (ssize_t (*)(int, void *, size_t, off64_t))dlsym(RTLD_NEXT, "pread64");
    real_write = (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    real_sync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    const char *seed = getenv("LOCKSTEP_SHIM_SEED");
    state = (seed ? strtoull(seed, NULL, 10) : 0) * 2 + 1;
    file = open(getenv("LOCKSTEP_SHIM_IMAGE"), O_RDWR | O_CLOEXEC);
    if (file < 0)
        abort();
}

static int is_told(const char *word)
{
    char text[8] = "";
    const char *control = getenv("LOCKSTEP_SHIM_CONTROL");
    int told = control ? open(control, O_RDONLY | O_CLOEXEC) : -1;
    if (told < 0)
        return 0;
    ssize_t length = read(told, text, sizeof text - 1);
    close(told);
    return length > 0 && strncmp(text, word, strlen(word)) == 0;
}

static void write_through(const unsigned char *bytes, size_t length, off64_t at)
{
    while (length > 0) {
        ssize_t done = real_write(file, bytes, length, at);
        if (done <= 0)
            abort();
        bytes += done, at += done, length -= (size_t)done;
    }
}

static ssize_t plain_read(int descriptor, void *bytes, size_t length, off64_t at)
{
    ssize_t (*real)(int, void *, size_t, off64_t) =
        (ssize_t (*)(int, void *, size_t, off64_t))dlsym(RTLD_NEXT, "pread64");
    return real(descriptor, bytes, length, at);
}

ssize_t pread64(int descriptor, void *bytes, size_t length, off64_t at)
{
    if (!is_image(descriptor))
        return plain_read(descriptor, bytes, length, at);
    pthread_mutex_lock(&lock);
    begin();
    ssize_t done = real_read(file, bytes, length, at);
    for (struct held *held = first; held && done > 0; held = held->next) {
        off64_t from = held->at > at ? held->at : at;
        off64_t held_end = held->at + (off64_t)held->length, end = at + done;
        off64_t until = held_end < end ? held_end : end;
        if (from < until)
            memcpy((unsigned char *)bytes + (from - at), held->bytes + (from - held->at), (size_t)(until - from));
    }
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t length, off64_t at)
{
    if (!is_image(descriptor)) {
        ssize_t (*real)(int, const void *, size_t, off64_t) =
            (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
        return real(descriptor, bytes, length, at);
    }
    pthread_mutex_lock(&lock);
    begin();
    int tears = is_told("tear"), lies = is_told("lie");
    struct held *held = malloc(sizeof *held + length);
    if (!held)
        abort();
    held->next = NULL, held->at = at, held->length = length;
    memcpy(held->bytes, bytes, length);
    *last = held, last = &held->next;
    for (size_t done = 0; done < length; done += SECTOR_BYTES) {
        size_t part = length - done < SECTOR_BYTES ? length - done : SECTOR_BYTES;
        if (tears ? done < length / 2 : !lies && is_drawn())
            write_through(held->bytes + done, part, at + (off64_t)done);
    }
    pthread_mutex_unlock(&lock);
    return (ssize_t)length;
}

/* Says that a write is torn, and never comes back. */
static void hang(void)
{
    char path[PATH_MAX + 8];
    snprintf(path, sizeof path, "%s.torn", getenv("LOCKSTEP_SHIM_IMAGE"));
    close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    for (;;)
        pause();
}

static int sync_by(const char *function, int descriptor)
{
    if (!is_image(descriptor)) {
        int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, function);
        return real(descriptor);
    }
    if (is_told("tear"))
        hang();
    if (is_told("lie"))
        return 0;
    if (is_told("fail")) {
        errno = EIO;
        return -1;
    }
    pthread_mutex_lock(&lock);
    begin();
    while (first) {
        struct held *held = first;
        write_through(held->bytes, held->length, held->at);
        first = held->next;
        free(held);
    }
    last = &first;
    int done = real_sync(file);
    pthread_mutex_unlock(&lock);
    return done;
}

int fsync(int descriptor)
{
    return sync_by("fsync", descriptor);
}

int fdatasync(int descriptor)
{
    return sync_by("fdatasync", descriptor);
}

/* Zeros are written, and held as any other bytes. */
int fallocate64(int descriptor, int mode, off64_t at, off64_t length)
{
    if (is_image(descriptor)) {
        errno = EOPNOTSUPP;
        return -1;
    }
    int (*real)(int, int, off64_t, off64_t) = (int (*)(int, int, off64_t, off64_t))dlsym(RTLD_NEXT, "fallocate64");
    return real(descriptor, mode, at, length);
}

int fallocate(int descriptor, int mode, off_t at, off_t length)
{
    return fallocate64(descriptor, mode, at, length);
}
