/* Clocks that jump, for one program: preloaded, it adds to what the kernel says of the time of day and
 * of the time since the machine has started what stands in the file JUMPS, in seconds, while it runs.
 * The clock that timers go by, CLOCK_MONOTONIC, is as it is: so it is after a machine has slept. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static const volatile int64_t *jumps;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("JUMPS");
	int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *there = mmap(NULL, 2 * sizeof(*jumps), PROT_READ, MAP_SHARED, file, 0);

	real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	/* A test that jumps nothing shows nothing. */
	if (file < 0 || there == MAP_FAILED || !real)
		abort();
	jumps = there;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
	int outcome = real(clock, time);

	if (outcome == 0 && clock == CLOCK_REALTIME)
		time->tv_sec += jumps[0];
	if (outcome == 0 && clock == CLOCK_BOOTTIME)
		time->tv_sec += jumps[1];
	return outcome;
}
