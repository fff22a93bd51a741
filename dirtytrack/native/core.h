// Everything the extension is built from; one header per room.
#pragma once

#include "barrier.h"
#include "checkpoint.h"
#include "history.h"
#include "kernel.h"
#include "memory.h"
#include "runs.h"
#include "snapshot.h"
#include "session.h"
