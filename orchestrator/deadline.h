// When the program has to have ended: as configured, or when the Slurm job that it runs in ends.
#ifndef SOLAR_DEADLINE_H
#define SOLAR_DEADLINE_H

#include <stdbool.h>

// "2030-12-31T23:59:00" (local time; UTC with a Z behind it) or seconds since 1970, to seconds since 1970.
bool deadline_parse(const char *text, double *when);
// configured, else SLURM_JOB_END_TIME, else what squeue says, else what scontrol says. NaN: there is none.
// *source (static text) says where it comes from. Asks Slurm only within a job; takes 20 seconds at most. Not
// collective.
double deadline_find(const char *configured, const char **source);

#endif
