// Runs a program over one step: each instruction spreads its tiles or rows over the threads.
#include "abi.h"
#include "bf16.h"
#include "layout.h"
#include "machine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <iterator>
#include <vector>

namespace {

int8_t* codes_of(const Rows& rows, int64_t row, int inputs) { return rows.codes + 4 * row * inputs; }
int32_t* sums_of(const Rows& rows, int64_t row, int inputs) { return rows.sums + row * (inputs / BLOCK); }

Row row_of(const Rows& rows, int64_t row, int inputs, float* out) {
    return {codes_of(rows, row, inputs), sums_of(rows, row, inputs), rows.scales[row], nullptr, out};
}

void quantise(const Isa& isa, const float* values, int width, const Rows& rows, int64_t row) {
    isa.quantise(values, width, codes_of(rows, row, width), sums_of(rows, row, width), rows.scales + row);
}

// What all parts of an instruction's products have in common.
struct Matrix {
    int format, inputs, outputs;
    bool add;
    int64_t ahead;
};

// -- one function per instruction

void embed(Machine& machine, const Embed& op, const Step& step) {
    machine.pool.each(step.num_tokens, 8, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; t++)
            for (int i = 0; i < op.width; i++)
                op.x[t * op.width + i] = widen(op.table[step.tokens[t] * op.width + i]);
    });
}

void norm(Machine& machine, const Norm& op, const Step& step) {
    const int count = op.which == SAMPLED ? step.num_samples : step.num_tokens;
    machine.pool.each(count, 1, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row++) {
            const float* x = op.x + (op.which == SAMPLED ? step.samples[row] : row) * op.width;
            float* normed = op.normed + row * op.width;
            machine.isa.norm(x, op.scale, op.width, op.epsilon, normed);
            if (op.rows.codes) quantise(machine.isa, normed, op.width, op.rows, row);
        }
    });
}

void quantise_rows(Machine& machine, const Quantise& op, const Step& step) {
    machine.pool.each(step.num_tokens, 1, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; t++)
            quantise(machine.isa, op.values + t * op.width, op.width, op.rows, t);
    });
}

// Rows that are multiplied with the same matrix, a panel's worth at most.
struct Part {
    const uint8_t* weights;
    const float* bias;
    int first, count;  // of the instruction's rows
    bool panel;        // whether they are gathered
    int64_t begin;     // their first unit of work: a tile, or PANEL_TILES of them
};

// All parts' products in one region: four regions of one expert each are 10% slower.
//
// row(i) is row i of the instruction, its output that of the first tile.
template <typename RowOf>
void multiply(Machine& machine, const Matrix& matrix, std::vector<Part>& parts, const RowOf& row) {
    const PanelKernel* kernel = machine.panel_kernel(matrix.format);
    const auto pass = matrix.format == MXFP4  ? machine.isa.mxfp4
                      : matrix.format == INT8 ? machine.isa.int8
                      : matrix.format == BF16 ? machine.isa.bf16
                                              : machine.isa.half;
    const int64_t tiles = round_up(matrix.outputs, TILE) / TILE, pairs = round_up(tiles, PANEL_TILES) / PANEL_TILES;
    const int64_t stride = tile_bytes(matrix.format, matrix.inputs);
    int64_t units = 0;
    bool panels = false;
    for (Part& part : parts) {
        part.begin = units;
        part.panel = kernel && part.count >= kernel->least;
        panels = panels || part.panel;
        units += part.panel ? pairs : tiles;
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
                if (part->panel) {
                    Panel& panel = Panel::of_this_thread();
                    if (fresh) panel.gather(*kernel, matrix.inputs, part->count, [&](int r) { return row(part->first + r); });
                    const int64_t tile = unit * PANEL_TILES;
                    panel.multiply(*kernel, tile_of(*part, tile), tile, int(std::min<int64_t>(PANEL_TILES, tiles - tile)));
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
                    pass(tile, rows, n);
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
    machine.split(matrix.format, count, [&](int first, int n) { parts.push_back({op.weights, op.bias, first, n}); });
    multiply(machine, matrix, parts, [&](int i) -> Row {
        const int64_t row = op.which == WHOLE ? machine.whole[i] : i;
        if (op.format == BF16) return {nullptr, nullptr, 0.0f, op.values + row * op.inputs, out + row * width};
        return row_of(op.rows, row, op.inputs, out + row * width);
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
    for (int32_t expert = 0; expert < to.experts; expert++)
        machine.split(MXFP4, to.starts[expert + 1] - to.starts[expert], [&](int first, int n) {
            parts.push_back({op.weights + expert * bytes, op.bias + expert * width, to.starts[expert] + first, n});
        });
    multiply(machine, matrix, parts, [&](int i) {
        const int64_t pair = to.pairs[i];
        return row_of(op.rows, op.by_token ? pair / to.used : pair, op.inputs, op.out + pair * width);
    });
}

void activate(Machine& machine, const Activate& op, const Step& step) {
    machine.pool.each(int64_t(step.num_tokens) * op.used, 1, [&](int64_t begin, int64_t end) {
        for (int64_t pair = begin; pair < end; pair++) {
            float* values = op.values + pair * 2 * op.width;
            machine.isa.swiglu(values, op.width, op.limit, op.alpha);
            quantise(machine.isa, values, op.width, op.rows, pair);
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

// The best columns of a row of logits: of equals the first, of numbers only.
std::vector<int32_t> best(const float* logits, const float* maxima, int64_t blocks, int vocabulary,
                          int count) {
    // The count best columns lie in blocks whose maximum is at least the count-th best maximum.
    float threshold = -INFINITY;
    if (blocks > count) {
        std::vector<float> ordered;
        std::remove_copy_if(maxima, maxima + blocks, std::back_inserter(ordered),
                            [](float x) { return std::isnan(x); });
        if (int64_t(ordered.size()) > count) {
            std::nth_element(ordered.begin(), ordered.begin() + count - 1, ordered.end(), std::greater<>());
            threshold = ordered[count - 1];
        }
    }
    std::vector<int32_t> columns;
    for (int64_t b = 0; b < blocks; b++)
        if (maxima[b] >= threshold)
            for (int32_t i = int32_t(b * 32); i < std::min<int64_t>(vocabulary, b * 32 + 32); i++)
                if (logits[i] >= threshold) columns.push_back(i);
    auto better = [&](int32_t a, int32_t b) {
        return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
    };
    if (int64_t(columns.size()) > count) {
        std::nth_element(columns.begin(), columns.begin() + count, columns.end(), better);
        columns.resize(count);
    }
    return columns;
}

// Fills in block_maxima.
void find_maxima(Machine& machine, int vocabulary, const Step& step) {
    const int64_t stride = round_up(vocabulary, TILE), blocks = stride / 32, rows = step.num_samples;
    machine.block_maxima.resize(rows * blocks);
    for (int64_t row = 0; row < rows; row++)  // columns past the vocabulary can win nothing
        std::fill(step.logits + row * stride + vocabulary, step.logits + (row + 1) * stride, -INFINITY);
    machine.pool.each(rows * blocks, 512, [&](int64_t begin, int64_t end) {
        machine.isa.maxima(step.logits + begin * 32, end - begin, machine.block_maxima.data() + begin);
    });
}

// The share of the probability, at this temperature, that all but the `count` best columns have.
float tail(Machine& machine, const float* logits, const float* maxima, int vocabulary, int count,
           float temperature) {
    constexpr int64_t PIECE = 512;  // whose sums are added up in order, however many threads there are
    const int64_t blocks = round_up(vocabulary, TILE) / 32, pieces = round_up(blocks, PIECE) / PIECE;
    float top = -INFINITY, threshold = INFINITY;
    for (const int32_t column : best(logits, maxima, blocks, vocabulary, count)) {
        top = std::max(top, logits[column]);
        threshold = std::min(threshold, logits[column]);
    }
    std::vector<float> all(pieces), below(pieces);
    machine.pool.each(pieces, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++)
            machine.isa.shares(logits + i * PIECE * 32, std::min(PIECE, blocks - i * PIECE), top,
                               1.0f / temperature, threshold, &all[i], &below[i]);
    });
    float whole = 0.0f, rest = 0.0f;
    for (int64_t i = 0; i < pieces; i++) whole += all[i], rest += below[i];
    return rest / whole;
}

void decide(Machine& machine, const Decide& op, const Step& step) {
    const int64_t stride = round_up(op.vocabulary, TILE), blocks = stride / 32;
    const float* temperatures = step.temperatures;
    auto drawn = [&](int64_t row) { return temperatures[row] > 0.0f && temperatures[row] < INFINITY; };
    machine.whole.clear();
    bool look = false;
    for (int64_t row = 0; temperatures && row < step.num_samples; row++) look = look || drawn(row);
    if (look) find_maxima(machine, op.vocabulary, step);
    for (int64_t row = 0; row < step.num_samples; row++) {
        if (temperatures && temperatures[row] == 0.0f) continue;  // only the best matters
        if (temperatures && drawn(row) &&
            tail(machine, step.logits + row * stride, machine.block_maxima.data() + row * blocks,
                 op.vocabulary, std::min(op.candidates, op.vocabulary), temperatures[row]) <= op.tail)
            continue;
        machine.whole.push_back(int32_t(row));
    }
}

void rescore(Machine& machine, const Rescore& op, const Step& step) {
    const int64_t stride = round_up(op.vocabulary, TILE), blocks = stride / 32;
    const int rows = step.num_samples, count = std::min(op.candidates, op.vocabulary);
    find_maxima(machine, op.vocabulary, step);
    machine.unwoven.resize(int64_t(rows) * op.width);
    std::vector<std::vector<int32_t>> columns(rows);
    machine.pool.each(rows, 1, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row++) {
            columns[row] = best(step.logits + row * stride, machine.block_maxima.data() + row * blocks,
                                blocks, op.vocabulary, count);
            const float* normed = op.normed + row * op.width;
            float* unwoven = machine.unwoven.data() + row * op.width;
            for (int i = 0; i < op.width; i++) unwoven[i / 32 * 32 + i % 2 * 16 + i % 32 / 2] = normed[i];
        }
    });
    machine.pool.each(int64_t(rows) * count, 8, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
            const int64_t row = i / count, rank = i % count;
            if (rank >= int64_t(columns[row].size())) continue;  // logits that are not numbers have no rank
            const int64_t column = columns[row][rank];
            step.logits[row * stride + column] = machine.isa.dot(
                op.table + column * op.width, machine.unwoven.data() + row * op.width, op.width);
        }
    });
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
        case OPCODES:
            return;
    }
}

}  // namespace

extern "C" int64_t gptoss_run(Machine* machine, Instruction* program, int length, const Step* step) {
    for (int i = 0; i < length; i++)
        if (program[i].opcode == EMBED)
            for (int64_t t = 0; t < step->num_tokens; t++)
                if (step->tokens[t] < 0 ||
                    step->tokens[t] >= static_cast<const Embed*>(program[i].operands)->vocabulary)
                    return t + 1;
    cut(*machine, *step);
    machine->pool.wake();
    auto before = std::chrono::steady_clock::now();
    for (int i = 0; i < length; i++) {
        execute(*machine, program[i], *step);
        const auto now = std::chrono::steady_clock::now();
        program[i].nanoseconds += std::chrono::duration_cast<std::chrono::nanoseconds>(now - before).count();
        before = now;
    }
    machine->pool.rest();
    return 0;
}
