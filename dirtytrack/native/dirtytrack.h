// Everything the extension is built from; one header per room.
#pragma once

#include "checkpoint.h"
#include "history.h"
#include "kernel.h"
#include "memory.h"
#include "runs.h"
#include "snapshot.h"
#include "tracker.h"
