// Everything the extension is built from; one header per floor.
#pragma once

#include "kernel.h"
#include "memory.h"
#include "runs.h"
#include "tracker.h"
