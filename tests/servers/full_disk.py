"""A disk that is full when a test says so, for one server: no file can grow, what there is stays.

As on a real one, blocks that a file has already can be written again. It takes no right that a
user does not have: a small library stands before the C library's calls.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.programs import missing, program

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int full(int fd, off_t end) {
    struct stat file;
    const char *flag = getenv("AIRAVATA_TEST_DISK_IS_FULL");
    int before = errno;
    int grows = flag && access(flag, F_OK) == 0 && fstat(fd, &file) == 0 &&
                S_ISREG(file.st_mode) && end > file.st_size;
    errno = grows ? ENOSPC : before;
    return grows;
}

static off_t total(const struct iovec *parts, int count) {
    off_t sum = 0;
    for (int i = 0; i < count; i++) sum += parts[i].iov_len;
    return sum;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return full(fd, at + size) ? -1 : REAL(pwrite)(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    return full(fd, at + size) ? -1 : REAL(pwrite64)(fd, data, size, at);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    return full(fd, at + total(parts, count)) ? -1 : REAL(pwritev)(fd, parts, count, at);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
    return full(fd, at + total(parts, count)) ? -1 : REAL(pwritev64)(fd, parts, count, at);
}
int posix_fallocate(int fd, off_t at, off_t size) {
    return full(fd, at + size) ? ENOSPC : REAL(posix_fallocate)(fd, at, size);
}
int posix_fallocate64(int fd, off64_t at, off64_t size) {
    return full(fd, at + size) ? ENOSPC : REAL(posix_fallocate64)(fd, at, size);
}
int fallocate(int fd, int mode, off_t at, off_t size) {
    return full(fd, at + size) ? -1 : REAL(fallocate)(fd, mode, at, size);
}
int fallocate64(int fd, int mode, off64_t at, off64_t size) {
    return full(fd, at + size) ? -1 : REAL(fallocate64)(fd, mode, at, size);
}
int ftruncate(int fd, off_t size) {
    return full(fd, size) ? -1 : REAL(ftruncate)(fd, size);
}
int ftruncate64(int fd, off64_t size) {
    return full(fd, size) ? -1 : REAL(ftruncate64)(fd, size);
}
"""


class FullDisk:
    """What a server needs in its environment, and the switch."""

    def __init__(self, folder: Path) -> None:
        """`folder` may be read by whoever the server runs as."""
        compiler = program("cc", "gcc", "clang")
        if compiler is None:
            missing("a C compiler")
        source, library = folder / "full_disk.c", folder / "full_disk.so"
        source.write_text(_SOURCE)
        command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)
        self._flag = folder / "is_full"
        self.environment = {
            "LD_PRELOAD": str(library),
            "AIRAVATA_TEST_DISK_IS_FULL": str(self._flag),
        }

    @contextmanager
    def filled(self) -> Iterator[None]:
        """No file of the server grows within the block."""
        self._flag.touch(mode=0o644)
        try:
            yield
        finally:
            self._flag.unlink()
