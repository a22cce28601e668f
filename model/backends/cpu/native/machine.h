// What a step uses: threads, the arithmetic of one instruction set, and scratch memory that grows when needed.
#pragma once

#include "abi.h"
#include "isa.h"
#include "layout.h"
#include "panels.h"
#include "pool.h"

#include <algorithm>
#include <vector>

// The rows that a thread multiplies, in the order in which it reads them.
class Panel {
public:
    static Panel& of_this_thread() {
        thread_local Panel panel;
        return panel;
    }

    template <typename RowOf>
    void gather(const PanelKernel& kernel, int inputs, int count, const RowOf& row) {
        rows_.clear();
        for (int r = 0; r < count; r++) rows_.push_back(row(r));
        memory_.resize(std::max<size_t>(memory_.size(), kernel.bytes(inputs, count) + ALIGNMENT));
        kernel.gather(rows_.data(), count, inputs, data());
    }

    // `tiles` tiles, of which the first is the matrix's tile `at`.
    void multiply(const PanelKernel& kernel, const Tile& first, int64_t at, int tiles) {
        shifted_ = rows_;
        for (Row& row : shifted_) row.out += at * TILE;
        kernel.multiply(first, tiles, data(), shifted_.data(), int(shifted_.size()));
    }

private:
    static constexpr size_t ALIGNMENT = 4096;
    uint8_t* data() {
        const uintptr_t start = reinterpret_cast<uintptr_t>(memory_.data());
        return reinterpret_cast<uint8_t*>(round_up(int64_t(start), ALIGNMENT));
    }

    std::vector<uint8_t> memory_;
    std::vector<Row> rows_, shifted_;
};

struct Tokens {  // consecutive tokens of one sequence
    int sequence, first, count;
};

constexpr int ROWS_IN_CACHE = 64;

struct Machine {
    Machine(int threads, const Isa& isa, const Panels* panels) : pool(threads), isa(isa), panels(panels) {}

    // The functions for this many rows; null if rows are multiplied with a tile a few at a time.
    const PanelKernel* panel_kernel(int format, bool coarse, int count) const {
        if (format != MXFP4 && format != INT8) return nullptr;
        for (const Panels* each = panels; each; each = each->smaller) {
            const PanelKernel& kernel = (format == MXFP4 ? each->mxfp4 : each->int8)[coarse];
            if (count >= kernel.least) return &kernel;
        }
        return nullptr;
    }

    // With more tokens the pauses between loads are too long for a processor's own prefetchers.
    int64_t ahead_of(int tokens) const { return tokens == 1 ? ahead : READ_AHEAD; }

    Pool pool;
    const Isa& isa;
    const Panels* panels;
    int64_t ahead = READ_AHEAD;       // how far a tile is prefetched in a step of one token
    std::vector<Tokens> tokens;       // of this step, in pieces that share keys while these are in cache
    int prompt_bits = 16;             // of the activations of prompts
    std::vector<uint8_t> coarse;      // [T] whether a token's rows have 8-bit codes; empty: none
    std::vector<float> rotation;      // [T, 2, D / 2]  cosines and sines
    std::vector<float> partials;      // of attention, if several threads compute the segments of one query
    std::vector<float> unwoven;       // [N, C]
    std::vector<float> block_maxima;  // [N, V / 32]
    std::vector<int32_t> whole;       // the samples that DECIDE chose, in order
    std::vector<std::vector<int32_t>> best;  // of each sample: its best columns, if DECIDE has left them
};

// attention.cpp
void cut(Machine&, const Step&);  // the batch into `tokens`
void store(Machine&, const Store&, const Step&);
void attend(Machine&, const Attend&, const Step&);

// best_logits.cpp
void decide(Machine&, const Decide&, const Step&);
void rescore(Machine&, const Rescore&, const Step&);
