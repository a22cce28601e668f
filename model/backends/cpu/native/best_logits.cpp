// Finds the best columns of the logits, which were computed from HIGH weights, and computes them from bf16 weights.
#include "layout.h"
#include "machine.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <vector>

namespace {

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
    std::vector<float> values;
    for (int64_t b = 0; b < blocks; b++)
        if (maxima[b] >= threshold)
            for (int32_t i = int32_t(b * 32); i < std::min<int64_t>(vocabulary, b * 32 + 32); i++)
                if (logits[i] >= threshold) columns.push_back(i), values.push_back(logits[i]);
    if (int64_t(columns.size()) <= count) return columns;
    std::nth_element(values.begin(), values.begin() + count - 1, values.end(), std::greater<>());
    const float last = values[count - 1];
    int64_t equals =
        count - std::count_if(values.begin(), values.begin() + count, [&](float x) { return x > last; });
    auto worse = [&](int32_t i) { return logits[i] < last || (logits[i] == last && equals-- <= 0); };
    columns.erase(std::remove_if(columns.begin(), columns.end(), worse), columns.end());
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

// Finds the best columns of these rows of logits, on all threads.
void find_best(Machine& machine, const std::vector<int32_t>& rows, int vocabulary, int count,
               const Step& step) {
    const int64_t stride = round_up(vocabulary, TILE), blocks = stride / 32;
    machine.pool.each(rows.size(), 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++)
            machine.best[rows[i]] =
                best(step.logits + rows[i] * stride, machine.block_maxima.data() + rows[i] * blocks, blocks,
                     vocabulary, count);
    });
}

// For each of these rows, the share of the probability, at its temperature, that all but its best columns
// have.
std::vector<float> tails(Machine& machine, const std::vector<int32_t>& rows, int vocabulary,
                         const Step& step) {
    constexpr int64_t PIECE = 512;  // whose sums are added up in order, however many threads there are
    const int64_t stride = round_up(vocabulary, TILE), blocks = stride / 32,
                  pieces = round_up(blocks, PIECE) / PIECE;
    std::vector<float> all(rows.size() * pieces), below(rows.size() * pieces), tails(rows.size());
    machine.pool.each(all.size(), 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
            const int64_t row = rows[i / pieces], block = i % pieces * PIECE;
            const float* logits = step.logits + row * stride;
            float top = -INFINITY, threshold = INFINITY;
            for (const int32_t column : machine.best[row]) {
                top = std::max(top, logits[column]);
                threshold = std::min(threshold, logits[column]);
            }
            machine.isa.shares(logits + block * 32, std::min(PIECE, blocks - block), top,
                               1.0f / step.temperatures[row], threshold, &all[i], &below[i]);
        }
    });
    for (size_t i = 0; i < rows.size(); i++) {
        float whole = 0.0f, rest = 0.0f;
        for (int64_t piece = i * pieces; piece < int64_t(i + 1) * pieces; piece++)
            whole += all[piece], rest += below[piece];
        tails[i] = rest / whole;
    }
    return tails;
}

}  // namespace

// Which rows need the whole logits: `machine.whole`.  What is found of the others is kept for `rescore`.
void decide(Machine& machine, const Decide& op, const Step& step) {
    const float* temperatures = step.temperatures;
    machine.whole.clear();
    machine.best.assign(step.num_samples, {});
    std::vector<int32_t> drawn;
    for (int32_t row = 0; row < step.num_samples; row++)
        if (!temperatures || !(temperatures[row] < INFINITY && temperatures[row] >= 0.0f))
            machine.whole.push_back(row);
        else if (temperatures[row] > 0.0f)  // at 0 only the best matters
            drawn.push_back(row);
    if (drawn.empty()) return;
    find_maxima(machine, op.vocabulary, step);
    find_best(machine, drawn, op.vocabulary, std::min(op.candidates, op.vocabulary), step);
    const std::vector<float> tail = tails(machine, drawn, op.vocabulary, step);
    for (size_t i = 0; i < drawn.size(); i++)
        if (!(tail[i] <= op.tail)) {
            machine.whole.push_back(drawn[i]);
            machine.best[drawn[i]].clear();
        }
    std::sort(machine.whole.begin(), machine.whole.end());
}

void rescore(Machine& machine, const Rescore& op, const Step& step) {
    const int64_t stride = round_up(op.vocabulary, TILE);
    const int rows = step.num_samples, count = std::min(op.candidates, op.vocabulary);
    machine.best.resize(rows);
    std::vector<int32_t> unknown;  // rows of which `decide` has left nothing
    for (int32_t row = 0; row < rows; row++)
        if (machine.best[row].empty()) unknown.push_back(row);
    find_maxima(machine, op.vocabulary, step);
    find_best(machine, unknown, op.vocabulary, count, step);
    machine.unwoven.resize(int64_t(rows) * op.width);
    machine.pool.each(rows, 1, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row++) {
            const float* normed = op.normed + row * op.width;
            float* unwoven = machine.unwoven.data() + row * op.width;
            for (int i = 0; i < op.width; i++) unwoven[i / 32 * 32 + i % 2 * 16 + i % 32 / 2] = normed[i];
        }
    });
    machine.pool.each(int64_t(rows) * count, 8, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
            const int64_t row = i / count, rank = i % count;
            if (rank >= int64_t(machine.best[row].size()))
                continue;  // logits that are not numbers have no rank
            const int64_t column = machine.best[row][rank];
            step.logits[row * stride + column] = machine.isa.dot(
                op.table + column * op.width, machine.unwoven.data() + row * op.width, op.width);
        }
    });
    machine.best.clear();
}
