#define FG_LEVEL fg_kernels_baseline
#define FG_LEVEL_NAME "baseline"
#include "level.h"
