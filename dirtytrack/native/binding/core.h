// Everything the extension is built from; one header per room.
#pragma once

#include "../barrier/cards.h"
#include "../checkpoint/capture.h"
#include "../snapshot/history.h"
#include "../kernel/kernel.h"
#include "../base/memory.h"
#include "../base/runs.h"
#include "../snapshot/snapshot.h"
#include "../core/session.h"
