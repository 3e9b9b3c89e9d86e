/* A disk that fails, for a program that is started with this library preloaded: the file $ATTACHE_TEST_DISK
 * (eight bytes, shared memory) says how. 1: it is read-only, as a file system becomes upon an error: what is
 * written, cut, renamed, removed or opened to be written gets EROFS, though it was open before. 2: what is
 * written arrives, and no sync succeeds (EIO). Else all goes on.
 *
 * A stand-in: no mount can be made read-only beneath files that are open to be written. Pipes and sockets are
 * left alone, and so is what goes to the kernel by no function of the C library. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_ONLY = 1, NO_SYNC = 2 };

static const volatile int64_t *state;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("ATTACHE_TEST_DISK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *shared = mmap(NULL, sizeof *state, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (shared != MAP_FAILED) state = shared;
}

static int is(int64_t how) { return state && *state == how; }

static int is_file(int fd) {
    struct stat found;
    return fstat(fd, &found) == 0 && S_ISREG(found.st_mode);
}

static int refuse(int error) {
    errno = error;
    return -1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define ON_FILE(type, name, parameters, arguments)                          \
    type name parameters {                                                  \
        if (is(READ_ONLY) && is_file(fd)) return refuse(EROFS);             \
        return REAL(name) arguments;                                        \
    }
ON_FILE(ssize_t, write, (int fd, const void *bytes, size_t count), (fd, bytes, count))
ON_FILE(ssize_t, pwrite, (int fd, const void *bytes, size_t count, off_t at), (fd, bytes, count, at))
ON_FILE(ssize_t, pwrite64, (int fd, const void *bytes, size_t count, off64_t at), (fd, bytes, count, at))
ON_FILE(int, ftruncate, (int fd, off_t length), (fd, length))
ON_FILE(int, ftruncate64, (int fd, off64_t length), (fd, length))

#define ON_SYNC(name)                                                       \
    int name(int fd) {                                                      \
        if (is(NO_SYNC) && is_file(fd)) return refuse(EIO);                 \
        return REAL(name)(fd);                                              \
    }
ON_SYNC(fsync)
ON_SYNC(fdatasync)

#define ON_NAME(name, parameters, arguments)                                \
    int name parameters {                                                   \
        if (is(READ_ONLY)) return refuse(EROFS);                            \
        return REAL(name) arguments;                                        \
    }
ON_NAME(unlink, (const char *path), (path))
ON_NAME(rename, (const char *from, const char *to), (from, to))

/* Devices and pipes may be opened on any file system. */
static int changes(const char *path, int flags) {
    struct stat found;
    if ((flags & O_ACCMODE) == O_RDONLY && !(flags & O_CREAT)) return 0;
    return stat(path, &found) != 0 || S_ISREG(found.st_mode);
}

#define ON_OPEN(name)                                                       \
    int name(const char *path, int flags, ...) {                            \
        va_list more;                                                       \
        va_start(more, flags);                                              \
        mode_t mode = va_arg(more, mode_t);                                 \
        va_end(more);                                                       \
        if (is(READ_ONLY) && changes(path, flags)) return refuse(EROFS);    \
        return REAL(name)(path, flags, mode);                               \
    }
ON_OPEN(open)
ON_OPEN(open64)
