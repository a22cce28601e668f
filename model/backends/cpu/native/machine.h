// What a step has at hand: threads, the arithmetic of one instruction set, and scratch memory that grows as
// needed.
#pragma once

#include "abi.h"
#include "isa.h"
#include "pool.h"

#include <vector>

struct Tokens {  // consecutive tokens of one sequence
    int sequence, first, count;
};

struct Machine {
    Machine(int threads, const Isa& isa) : pool(threads), isa(isa) {}

    // With more tokens the pauses between loads are too long for a processor's own prefetchers.
    int64_t ahead_of(int tokens) const { return tokens == 1 ? ahead : READ_AHEAD; }

    Pool pool;
    const Isa& isa;
    int64_t ahead = READ_AHEAD;       // how far a tile is prefetched in a step of one token
    std::vector<Tokens> tokens;       // of this step, in pieces that share keys while these are in cache
    std::vector<float> rotation;      // [T, 2, D / 2]  cosines and sines
    std::vector<float> partials;      // of attention, where one query's segments are different threads'
    std::vector<float> unwoven;       // [N, C]
    std::vector<float> block_maxima;  // [N, V / 32]
    std::vector<int32_t> whole;       // the samples that DECIDE chose, in order
};

// attention.cpp
void cut(Machine&, const Step&);  // the batch into `tokens`
void store(Machine&, const Store&, const Step&);
void attend(Machine&, const Attend&, const Step&);
