// The schema of the run config: one table, from which parsing, defaults, `solar config --schema` and the
// resolved config.yaml come.
#ifndef SOLAR_SCHEMA_H
#define SOLAR_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>

#include "config.h"

typedef enum key_type {
    KEY_INT,         // int64_t
    KEY_REAL,        // double
    KEY_BOOL,        // bool
    KEY_TEXT,        // char *
    KEY_PATH,        // char *
    KEY_CHOICE,      // int: the index of the word (C enums here are int-sized)
    KEY_CHOICE_BOOL, // bool: the second word
    KEY_CHOICE_TEXT, // char *
    KEY_ONLY,        // one word and no member: what is here to be written out
    KEY_PAIR,        // double[2]
    KEY_INTS,        // int64_t *, and int at `count`
    KEY_LAYERS,      // char *: "0-23,8-31"; `legal`: letters that may stand behind a part
    KEY_REALS,       // double *, and int at `count`
    // Lists of maps: a pointer to the items, and int at `count`; keys of an item: "PATH[].key"
    KEY_SOURCES, // source_config *
    KEY_BLENDS,  // blend_config *
    KEY_PHASES,  // schedule_phase *
} key_type;

typedef struct key {
    const char *path;
    key_type type;
    size_t offset; // of the member within config; within an item for the keys of an item
    size_t count;  // lists: the number of items, an int
    // Default in YAML. NULL: the key is required. "null": may be left out. "(words)": where another
    // key decides, by config_check.c.
    const char *preset;
    const char *legal; // numbers: an interval; choices: "a|b"
    const char *unit;
    const char *meaning;
} key;

extern const key schema[];
extern const int schema_keys;

const key *schema_find(const char *path); // NULL when there is none
bool schema_is_section(const char *path); // "run", "model.dus"
bool key_is_optional(const key *k);       // null is a legal value
// Bytes of an item of a list of maps; 0 for other types.
size_t item_bytes(key_type t);
// A list of maps as an example: "{files: web/*.h5}".
const char *item_example(key_type t);
// The first key of the items of a list of maps; *count of them follow each other in the table.
const key *schema_items(const key *list, int *count);
// The part of the path behind the last "." ("lr").
const char *key_leaf(const key *k);

const char *key_type_name(key_type t); // "integer"
// What is legal: "integer >= 1", "one of fp32, bf16".
enum { EXPECTED_BYTES = 200 };
void key_expected(char out[EXPECTED_BYTES], const key *k);
// The i-th word of "a|b|c" into out; false behind the last.
bool choice_word(char out[32], const char *legal, int i);

#endif
