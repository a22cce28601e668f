// Products of many rows at once, for prompts, if an instruction set has something faster than MAX_ROWS rows at a
// time.
//
// A panel has the codes of some rows in the order in which a product reads them, so that rows from different places
// in memory become one stream.  It is built once, and then multiplied with one tile after the other.  A matrix is
// read once per panel, so a panel has as many rows as fit into the second level of cache.
//
// The results are bit-identical to those of `Isa`.
#pragma once

#include "isa.h"
#include "layout.h"

constexpr int PANEL_TILES = 2;  // adjacent tiles that may share one pass over a panel

struct PanelKernel {
    int64_t (*bytes)(int inputs, int rows);
    void (*gather)(const Row* rows, int count, int inputs, uint8_t* panel);  // aligned to 4096
    // `tiles` tiles, from `first` on, times the rows of the panel; outputs of the second lie 32 after the first's.
    void (*multiply)(const Tile& first, int tiles, const uint8_t* panel, const Row* rows, int count);
    int most, least;  // rows in a panel: more have no room in cache, fewer are not worth it
};

// By whether codes have 8 bits.
struct Panels {
    PanelKernel mxfp4[2], int8[2];
    const Panels* smaller;  // for fewer rows than these are worth it for, or null
};

#if defined(__x86_64__)
extern const Panels VNNI;
#if __GNUC__ >= 11 || defined(__clang__)
#define HAVE_AMX  // older compilers do not know the instructions
extern const PanelKernel AMX_MXFP4, AMX_INT8, AMX_MXFP4_CODES8, AMX_INT8_CODES8;
extern const Panels AMX;
bool amx_runs_here();  // asks the system for permission
#endif
#endif
