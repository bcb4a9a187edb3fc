/* Storage in trouble: loaded before the C library (LD_PRELOAD), this makes system calls on the directory
 * LOCKSTEP_SHIM_DIRECTORY hang for ever or fail, for as long as the file LOCKSTEP_SHIM_CONTROL says "hang" or
 * "stale"; the file LOCKSTEP_SHIM_SPARED in it has no trouble. A call that hangs does not come back when the control
 * file is gone: as one on a mount whose server is lost. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_below(const char *path)
{
    const char *directory = getenv("LOCKSTEP_SHIM_DIRECTORY");
    const char *spared = getenv("LOCKSTEP_SHIM_SPARED");
    if (spared && strcmp(path, spared) == 0)
        return 0;
    return directory && strncmp(path, directory, strlen(directory)) == 0;
}

/* Hangs, or says that the call has failed; 0 where all is well. */
static int trouble(const char *path)
{
    char word[8] = "";
    const char *control = getenv("LOCKSTEP_SHIM_CONTROL");
    int file = control && is_below(path) ? open(control, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return 0;
    ssize_t length = read(file, word, sizeof word - 1);
    close(file);
    while (length > 0 && strncmp(word, "hang", 4) == 0)
        pause();
    if (length > 0 && strncmp(word, "stale", 5) == 0) {
        errno = ESTALE;
        return -1;
    }
    return 0;
}

static int sync_by(const char *function, int descriptor)
{
    char name[64], path[PATH_MAX + 1] = "";
    snprintf(name, sizeof name, "/proc/self/fd/%d", descriptor);
    if (readlink(name, path, PATH_MAX) > 0 && trouble(path) != 0)
        return -1;
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, function);
    return real(descriptor);
}

int fsync(int descriptor)
{
    return sync_by("fsync", descriptor);
}

int fdatasync(int descriptor)
{
    return sync_by("fdatasync", descriptor);
}

int linkat(int from_directory, const char *from, int to_directory, const char *to, int flags)
{
    if (trouble(to) != 0)
        return -1;
    int (*real)(int, const char *, int, const char *, int) =
        (int (*)(int, const char *, int, const char *, int))dlsym(RTLD_NEXT, "linkat");
    return real(from_directory, from, to_directory, to, flags);
}

/* What Rust's standard library opens files by. */
int open64(const char *path, int flags, ...)
{
    mode_t mode = 0;
    if (flags & (O_CREAT | __O_TMPFILE)) {
        va_list rest;
        va_start(rest, flags);
        mode = va_arg(rest, mode_t);
        va_end(rest);
    }
    if (trouble(path) != 0)
        return -1;
    int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
    return real(path, flags, mode);
}
