// Everything the extension is built from; one header per room.
#pragma once

#include "checkpoint.h"
#include "kernel.h"
#include "memory.h"
#include "runs.h"
#include "tracker.h"
