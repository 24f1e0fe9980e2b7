#define FG_LEVEL fg_kernels_avx2
#define FG_LEVEL_NAME "avx2"
#include "level.h"
