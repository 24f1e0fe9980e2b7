#define FG_LEVEL fg_kernels_avx512
#define FG_LEVEL_NAME "avx512"
#include "level.h"
