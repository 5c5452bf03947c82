// Functions compiled for several processors, one of which the loader takes: HALFSTEP_CLONES("avx2", "default") void
// f();
#pragma once

// The loader asks a function of ours, which ThreadSanitizer of GCC instruments, before the sanitizer is ready.
#ifdef __SANITIZE_THREAD__
#define HALFSTEP_CLONES(...)
#else
#define HALFSTEP_CLONES(...) __attribute__((target_clones(__VA_ARGS__)))
#endif
