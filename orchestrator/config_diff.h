// Two resolved configs (config_dump) beside each other. The run's own place and time (run.dir, run.deadline,
// run.margin) count for nothing.
#ifndef SOLAR_CONFIG_DIFF_H
#define SOLAR_CONFIG_DIFF_H

// XXH3-128 of all keys that count.
void config_sum(const char *text, char out[33]);
// Calls `tell` for every key whose value differs, as "section.key"; "nothing" where one of them lacks it.
// Returns how many there are.
int config_changes(const char *before, const char *now,
                   void (*tell)(void *context, const char *key, const char *before, const char *now),
                   void *context);

#endif
