// Everything the extension is built from; one header per room.
#pragma once

#include "../barrier/cards.h"
#include "../base/memory.h"
#include "../base/runs.h"
#include "../checkpoint/capture.h"
#include "../core/session.h"
#include "../kernel/kernel.h"
#include "../snapshot/history.h"
#include "../snapshot/snapshot.h"
