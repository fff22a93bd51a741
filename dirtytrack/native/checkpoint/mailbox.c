// One word says all: who is waited for sleeps at it.
#include "mailbox.h"

#include <errno.h>

#include "../base/futex.h"
#include "../base/patience.h"

enum { EMPTY, WAITED_AT, TAKEN, POSTED }; // TAKEN: an errand is being put there

static bool becomes(struct dt_mailbox *mailbox, uint32_t from, uint32_t to)
{
	return __atomic_compare_exchange_n(&mailbox->state, &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

int dt_errand_run(struct dt_errand *errand)
{
	if (errand->is_done)
		return errand->error;
	errand->is_done = true;
	bool is_revoked = errand->revoked && __atomic_load_n(errand->revoked, __ATOMIC_ACQUIRE);
	errand->error = is_revoked ? -ECANCELED : dt_file_calls(errand->calls, errand->count, &errand->made);
	return errand->error;
}

int dt_mailbox_is_waited_at(const struct dt_mailbox *mailbox)
{
	return __atomic_load_n(&mailbox->state, __ATOMIC_ACQUIRE) == WAITED_AT;
}

int dt_mailbox_post(struct dt_mailbox *mailbox, struct dt_errand *errand)
{
	// Once more, where it has begun or ended to wait in between.
	for (;;) {
		if (becomes(mailbox, WAITED_AT, TAKEN)) {
			mailbox->errand = errand;
			__atomic_store_n(&mailbox->state, POSTED, __ATOMIC_RELEASE);
			dt_futex_wake_one(&mailbox->state);
			return 1;
		}
		if (becomes(mailbox, EMPTY, POSTED))
			return 0;
		uint32_t state = __atomic_load_n(&mailbox->state, __ATOMIC_ACQUIRE);
		if (state == TAKEN || state == POSTED) // somebody else has posted, or is about to
			return 0;
	}
}

void dt_mailbox_wait(struct dt_mailbox *mailbox)
{
	struct dt_errand *errand = NULL;
	dt_takes_long();
	if (becomes(mailbox, EMPTY, WAITED_AT)) {
		uint32_t state;
		while ((state = __atomic_load_n(&mailbox->state, __ATOMIC_ACQUIRE)) != POSTED)
			dt_futex_wait(&mailbox->state, state, NULL);
		errand = mailbox->errand;
		mailbox->errand = NULL;
	}
	__atomic_store_n(&mailbox->state, EMPTY, __ATOMIC_SEQ_CST); // before it is looked for what was put
	if (errand)
		dt_errand_run(errand);
}
