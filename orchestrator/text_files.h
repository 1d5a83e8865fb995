// Which files a list of paths means: files as they are, directories walked recursively.
#ifndef SOLAR_TEXT_FILES_H
#define SOLAR_TEXT_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include "text_input.h"

typedef struct text_file {
    char *path;
    uint64_t bytes;
    bool json;
} text_file;

typedef struct file_list {
    text_file *file;
    int count, capacity;
    int skipped; // in directories, of names that mean nothing here
} file_list;

// Appends what `path` names, in the order of names. ERR_INPUT for what is missing or of an unknown kind.
err *files_add(file_list *l, const char *path, text_format format);
void files_free(file_list *l);

#endif
