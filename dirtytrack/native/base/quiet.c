// Signals and cancellation.
#include "quiet.h"

#include <pthread.h>
#include <stddef.h>

struct dt_quiet dt_quiet_begin(void)
{
	static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
	struct dt_quiet quiet = {.is_nested = false};
	sigset_t blocked;
	sigfillset(&blocked);
	for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
		sigdelset(&blocked, faults[i]);
	pthread_sigmask(SIG_BLOCK, &blocked, &quiet.signals);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &quiet.cancel_state);
	return quiet;
}

void dt_quiet_end(const struct dt_quiet *quiet)
{
	if (quiet->is_nested)
		return;
	pthread_setcancelstate(quiet->cancel_state, NULL);
	pthread_sigmask(SIG_SETMASK, &quiet->signals, NULL);
}
