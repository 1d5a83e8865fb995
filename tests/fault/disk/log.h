// The record of what a program did to a disk: one disk_record a call, then its path, other path and data.
#ifndef SOLAR_DISK_LOG_H
#define SOLAR_DISK_LOG_H

#include <stdint.h>

typedef enum disk_call {
    DISK_CREATE, // open that makes the file
    DISK_OPEN,   // another open
    DISK_CLOSE,
    DISK_WRITE,  // bytes at `at`
    DISK_SYNC,   // of a file or a directory
    DISK_RENAME, // path to other
    DISK_MKDIR,
    DISK_SYMLINK, // path, which points to other
    DISK_REMOVE,
    DISK_CALLS,
} disk_call;

typedef struct disk_record {
    uint32_t kind, path_bytes, other_bytes, unused; // of paths with their NUL; other_bytes 0: none
    uint64_t at, bytes;
} disk_record;

#endif
