// AMX: which product is for which weights and rows, and whether it runs here.
//
// Compiled for all processors, because it is called on all.
#include "panels.h"

#if defined(HAVE_AMX)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

const Panels AMX = {{AMX_MXFP4, AMX_MXFP4_CODES8}, {AMX_INT8, AMX_INT8_CODES8}, &VNNI};

bool amx_runs_here() {
    constexpr int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;  // of arch_prctl, Linux 5.16
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    constexpr unsigned BF16_BIT = 1u << 22, TILE_BIT = 1u << 24, INT8_BIT = 1u << 25;
    if ((d & (BF16_BIT | TILE_BIT | INT8_BIT)) != (BF16_BIT | TILE_BIT | INT8_BIT)) return false;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

#endif
