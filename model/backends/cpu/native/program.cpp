// Runs a program over one step: each instruction spreads its tiles or rows over the threads.
#include "abi.h"
#include "bf16.h"
#include "layout.h"
#include "machine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <vector>

namespace {

int8_t* codes_of(const Rows& rows, int64_t row, int inputs) { return rows.codes + 4 * row * inputs; }
int32_t* sums_of(const Rows& rows, int64_t row, int inputs) { return rows.sums + row * (inputs / BLOCK); }
float* blocks_of(const Rows& rows, int64_t row, int inputs) { return rows.blocks + row * (inputs / BLOCK); }

Row row_of(const Rows& rows, int64_t row, int inputs, float* out, bool coarse) {
    return {codes_of(rows, row, inputs), sums_of(rows, row, inputs), rows.scales[row], nullptr, out,
            coarse ? blocks_of(rows, row, inputs) : nullptr};
}

void quantise(const Isa& isa, const float* values, int width, const Rows& rows, int64_t row, bool coarse) {
    int8_t* codes = codes_of(rows, row, width);
    int32_t* sums = sums_of(rows, row, width);
    if (coarse)
        isa.quantise_coarse(values, width, codes, sums, blocks_of(rows, row, width));
    else
        isa.quantise(values, width, codes, sums, rows.scales + row);
}

bool is_coarse(const Machine& machine, int64_t token) { return !machine.coarse.empty() && machine.coarse[token]; }

// What all parts of an instruction's products have in common.
struct Matrix {
    int format, inputs, outputs;
    bool add;
    int64_t ahead;
};

// -- one function per instruction

void embed(Machine& machine, const Embed& op, const Step& step) {
    machine.pool.each(step.num_tokens, 8, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; t++) {
            const int64_t token = step.tokens[t] - op.first;
            float* x = op.x + t * op.width;
            if (token < 0 || token >= op.vocabulary) {
                std::fill_n(x, op.width, 0.0f);
                continue;
            }
            for (int i = 0; i < op.width; i++) x[i] = widen(op.table[token * op.width + i]);
        }
    });
}

void norm(Machine& machine, const Norm& op, const Step& step) {
    const int count = op.which == SAMPLED ? step.num_samples : step.num_tokens;
    machine.pool.each(count, 1, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row++) {
            const float* x = op.x + (op.which == SAMPLED ? step.samples[row] : row) * op.width;
            float* normed = op.normed + row * op.width;
            machine.isa.norm(x, op.scale, op.width, op.epsilon, normed);
            if (op.rows.codes)
                quantise(machine.isa, normed, op.width, op.rows, row, op.which == ALL && is_coarse(machine, row));
        }
    });
}

void quantise_rows(Machine& machine, const Quantise& op, const Step& step) {
    machine.pool.each(step.num_tokens, 1, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; t++)
            quantise(machine.isa, op.values + t * op.width, op.width, op.rows, t, is_coarse(machine, t));
    });
}

// Rows that are multiplied with the same matrix, a panel's worth at most.
struct Part {
    const uint8_t* weights;
    const float* bias;
    int first, count;  // of the instruction's rows
    bool coarse;
    const PanelKernel* kernel = nullptr;  // if they are gathered
    int64_t begin = 0;                    // their first unit of work: a tile, or PANEL_TILES of them
};

// Rows first .. last, of one matrix and alike, as parts that stay in cache while a tile is multiplied with them.
void split(const Machine& machine, int format, Part all, std::vector<Part>& parts) {
    while (all.count > 0) {
        Part part = all;
        part.kernel = machine.panel_kernel(format, all.coarse, all.count);
        part.count = std::min(all.count, part.kernel ? part.kernel->most : ROWS_IN_CACHE);
        parts.push_back(part);
        all.first += part.count;
        all.count -= part.count;
    }
}

// All parts' products in one region: four regions of one expert each are 10% slower.
//
// row(i) is row i of the instruction, its output that of the first tile.
template <typename RowOf>
void multiply(Machine& machine, const Matrix& matrix, std::vector<Part>& parts, const RowOf& row) {
    const Isa& isa = machine.isa;
    const auto pass = matrix.format == MXFP4  ? isa.mxfp4
                      : matrix.format == INT8 ? isa.int8
                      : matrix.format == BF16 ? isa.bf16
                                              : isa.half;
    const auto coarse_pass = matrix.format == MXFP4 ? isa.mxfp4_coarse : isa.int8_coarse;
    const int64_t tiles = round_up(matrix.outputs, TILE) / TILE, pairs = round_up(tiles, PANEL_TILES) / PANEL_TILES;
    const int64_t stride = tile_bytes(matrix.format, matrix.inputs);
    int64_t units = 0;
    bool panels = false;
    for (Part& part : parts) {
        part.begin = units;
        panels = panels || part.kernel;
        units += part.kernel ? pairs : tiles;
    }
    auto tile_of = [&](const Part& part, int64_t tile) {
        return Tile{part.weights + tile * stride, part.bias ? part.bias + tile * TILE : nullptr,
                    matrix.inputs, matrix.add, offset_of(matrix.format), matrix.ahead};
    };
    // A panel is gathered anew for each range.
    machine.pool.each(units, panels ? 4 : 1, [&](int64_t begin, int64_t end) {
        auto part = std::upper_bound(parts.begin(), parts.end(), begin,
                                     [](int64_t unit, const Part& each) { return unit < each.begin; }) - 1;
        for (bool fresh = true; begin < end; ++part, fresh = true)
            for (const int64_t last = std::min(end, part + 1 < parts.end() ? (part + 1)->begin : units); begin < last;
                 begin++, fresh = false) {
                const int64_t unit = begin - part->begin;
                if (part->kernel) {
                    Panel& panel = Panel::of_this_thread();
                    if (fresh) panel.gather(*part->kernel, matrix.inputs, part->count, [&](int r) { return row(part->first + r); });
                    const int64_t tile = unit * PANEL_TILES;
                    panel.multiply(*part->kernel, tile_of(*part, tile), tile, int(std::min<int64_t>(PANEL_TILES, tiles - tile)));
                    continue;
                }
                const Tile tile = tile_of(*part, unit);
                for (int first = 0; first < part->count; first += MAX_ROWS) {
                    Row rows[MAX_ROWS];
                    const int n = std::min(MAX_ROWS, part->count - first);
                    for (int r = 0; r < n; r++) {
                        rows[r] = row(part->first + first + r);
                        rows[r].out += unit * TILE;
                    }
                    (part->coarse ? coarse_pass : pass)(tile, rows, n);
                }
            }
    });
}

void dense(Machine& machine, const Dense& op, const Step& step) {
    const int count = op.which == ALL       ? step.num_tokens
                      : op.which == SAMPLED ? step.num_samples
                                            : int(machine.whole.size());
    const Matrix matrix = {op.format, op.inputs, op.outputs, bool(op.add), machine.ahead_of(count)};
    const int64_t width = round_up(op.outputs, TILE);
    float* out = op.out ? op.out : step.logits;
    std::vector<Part> parts;
    std::vector<int32_t> order;  // of the rows, if some are coarse: those that are not come first
    int exact = count;
    if (op.which == ALL && (op.format == INT8 || op.format == MXFP4) && !machine.coarse.empty()) {
        for (int t = 0; t < count; t++) order.push_back(t);
        const auto end = std::stable_partition(order.begin(), order.end(), [&](int t) { return !machine.coarse[t]; });
        exact = int(end - order.begin());
    }
    split(machine, op.format, {op.weights, op.bias, 0, exact, false}, parts);
    split(machine, op.format, {op.weights, op.bias, exact, count - exact, true}, parts);
    multiply(machine, matrix, parts, [&](int i) -> Row {
        const int64_t row = op.which == WHOLE ? machine.whole[i] : order.empty() ? i : order[i];
        float* to = out + row * width;
        if (op.format == BF16) return {nullptr, nullptr, 0.0f, op.values + row * op.inputs, to, nullptr};
        return row_of(op.rows, row, op.inputs, to, i >= exact);
    });
}

void route(Machine&, const Route& op, const Step& step) {
    const Assignment& to = op.assignment;
    const int64_t stride = round_up(to.experts, TILE);
    for (int64_t t = 0; t < step.num_tokens; t++) {
        const float* logits = op.logits + t * stride;
        int32_t* chosen = to.chosen + t * to.used;
        float* shares = to.shares + t * to.used;
        int count = 0;
        // Insertion: of equals, the first expert stays ahead.
        for (int32_t expert = 0; expert < to.experts; expert++) {
            int at = count < to.used ? count++ : to.used;
            for (; at > 0 && logits[expert] > logits[chosen[at - 1]]; at--)
                if (at < to.used) chosen[at] = chosen[at - 1];
            if (at < to.used) chosen[at] = expert;
        }
        float total = 0.0f;
        for (int a = 0; a < to.used; a++)
            total += shares[a] = float(std::exp(double(logits[chosen[a]] - logits[chosen[0]])));
        for (int a = 0; a < to.used; a++) shares[a] /= total;
    }
    std::fill_n(to.starts, to.experts + 1, 0);
    const int64_t pairs = int64_t(step.num_tokens) * to.used;
    for (int64_t pair = 0; pair < pairs; pair++) to.starts[to.chosen[pair] + 1]++;
    for (int expert = 0; expert < to.experts; expert++) to.starts[expert + 1] += to.starts[expert];
    for (int64_t pair = 0; pair < pairs; pair++) to.pairs[to.starts[to.chosen[pair]]++] = int32_t(pair);
    for (int expert = to.experts; expert > 0; expert--) to.starts[expert] = to.starts[expert - 1];
    to.starts[0] = 0;
}

void experts(Machine& machine, const Experts& op, const Step& step) {
    const Assignment& to = op.assignment;
    const int64_t width = round_up(op.outputs, TILE), bytes = width / TILE * mxfp4_tile_bytes(op.inputs);
    const Matrix matrix = {MXFP4, op.inputs, op.outputs, false, machine.ahead_of(step.num_tokens)};
    std::vector<Part> parts;
    std::vector<int32_t> pairs(to.pairs, to.pairs + to.starts[to.experts]);
    for (int64_t pair = 0; pair < int64_t(step.num_tokens) * to.used; pair++)
        if (to.chosen[pair] < to.first || to.chosen[pair] >= to.first + to.own)
            std::fill_n(op.out + pair * width, width, 0.0f);
    for (int32_t expert = to.first; expert < to.first + to.own; expert++) {
        const auto begin = pairs.begin() + to.starts[expert], end = pairs.begin() + to.starts[expert + 1];
        const int first = to.starts[expert], exact = int(std::stable_partition(begin, end, [&](int32_t pair) {
            return !is_coarse(machine, pair / to.used);
        }) - begin);
        const uint8_t* weights = op.weights + (expert - to.first) * bytes;
        const float* bias = op.bias + (expert - to.first) * width;
        split(machine, MXFP4, {weights, bias, first, exact, false}, parts);
        split(machine, MXFP4, {weights, bias, first + exact, int(end - begin) - exact, true}, parts);
    }
    multiply(machine, matrix, parts, [&](int i) {
        const int64_t pair = pairs[i];
        return row_of(op.rows, op.by_token ? pair / to.used : pair, op.inputs, op.out + pair * width,
                      is_coarse(machine, pair / to.used));
    });
}

void activate(Machine& machine, const Activate& op, const Step& step) {
    machine.pool.each(int64_t(step.num_tokens) * op.used, 1, [&](int64_t begin, int64_t end) {
        for (int64_t pair = begin; pair < end; pair++) {
            float* values = op.values + pair * 2 * op.width;
            machine.isa.swiglu(values, op.width, op.limit, op.alpha);
            quantise(machine.isa, values, op.width, op.rows, pair, is_coarse(machine, pair / op.used));
        }
    });
}

void combine(Machine& machine, const Combine& op, const Step& step) {
    machine.pool.each(step.num_tokens, 1, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; t++)
            machine.isa.combine(op.values + t * op.used * op.width, op.shares + t * op.used, op.used,
                                op.width, op.x + t * op.width);
    });
}

void clear(Machine& machine, const Clear& op, const Step& step) {
    machine.pool.each(step.num_tokens, 8, [&](int64_t begin, int64_t end) {
        std::fill(op.x + begin * op.width, op.x + end * op.width, 0.0f);
    });
}

// Which tokens are of prompts whose activations have 8 bits.
void mark(Machine& machine, const Step& step) {
    machine.coarse.clear();
    if (machine.prompt_bits == 16 || !step.prompts) return;
    machine.coarse.resize(step.num_tokens);
    for (int s = 0; s < step.num_sequences; s++)
        for (int t = step.starts[s]; t < step.starts[s + 1]; t++) machine.coarse[t] = step.positions[t] < step.prompts[s];
}

void execute(Machine& machine, const Instruction& instruction, const Step& step) {
    const void* operands = instruction.operands;
    switch (Opcode(instruction.opcode)) {
        case EMBED:
            return embed(machine, *static_cast<const Embed*>(operands), step);
        case NORM:
            return norm(machine, *static_cast<const Norm*>(operands), step);
        case QUANTISE:
            return quantise_rows(machine, *static_cast<const Quantise*>(operands), step);
        case DENSE:
            return dense(machine, *static_cast<const Dense*>(operands), step);
        case STORE:
            return store(machine, *static_cast<const Store*>(operands), step);
        case ATTEND:
            return attend(machine, *static_cast<const Attend*>(operands), step);
        case ROUTE:
            return route(machine, *static_cast<const Route*>(operands), step);
        case EXPERTS:
            return experts(machine, *static_cast<const Experts*>(operands), step);
        case ACTIVATE:
            return activate(machine, *static_cast<const Activate*>(operands), step);
        case COMBINE:
            return combine(machine, *static_cast<const Combine*>(operands), step);
        case DECIDE:
            return decide(machine, *static_cast<const Decide*>(operands), step);
        case RESCORE:
            return rescore(machine, *static_cast<const Rescore*>(operands), step);
        case CLEAR:
            return clear(machine, *static_cast<const Clear*>(operands), step);
        case ADD_UP:  // gptoss_run's own
        case OPCODES:
            return;
    }
}

}  // namespace

extern "C" int64_t gptoss_run(Machine* machine, Instruction* program, int length, const Step* step) {
    for (int i = 0; i < length; i++)
        if (program[i].opcode == EMBED)
            for (int64_t t = 0; t < step->num_tokens; t++)
                if (step->tokens[t] < 0 || step->tokens[t] >= static_cast<const Embed*>(program[i].operands)->all)
                    return t + 1;
    cut(*machine, *step);
    mark(*machine, *step);
    machine->pool.wake();
    auto before = std::chrono::steady_clock::now();
    int64_t outcome = 0;
    for (int i = 0; i < length && !outcome; i++) {
        if (program[i].opcode == ADD_UP)
            outcome = static_cast<const AddUp*>(program[i].operands)->add_up(step->num_tokens) ? -1 : 0;
        else
            execute(*machine, program[i], *step);
        const auto now = std::chrono::steady_clock::now();
        program[i].nanoseconds += std::chrono::duration_cast<std::chrono::nanoseconds>(now - before).count();
        before = now;
    }
    machine->pool.rest();
    return outcome;
}
