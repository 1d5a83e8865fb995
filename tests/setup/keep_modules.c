// Linked into sanitizer builds only. Open MPI unloads its modules at the end; what they leaked would then be
// reported as of an unknown module, and tests/lsan.supp could not name it. So nothing is unloaded.
__attribute__((weak)) int dlclose(void *handle); // weak: a test may bring its own

__attribute__((weak)) int dlclose(void *handle) {
    (void)handle;
    return 0;
}
