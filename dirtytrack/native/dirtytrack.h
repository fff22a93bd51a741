// Everything the extension is built from; one header per floor.
#pragma once

#include "kernel.h"
