// Runs a program over one step: each instruction spreads its tiles or rows over the threads.
#include "abi.h"
#include "layout.h"
#include "machine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

namespace {

constexpr int PANEL = 64;         // rows that pass over a tile before the next tile: they and it stay in cache
constexpr int QUERY_TILE = 16;    // tokens that pass over a segment of keys before the next

float widen(uint16_t bf16) {
    const uint32_t bits = uint32_t(bf16) << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

uint16_t to_bf16(float x) {  // to nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t(bits >> 16 | 64);  // still not a number
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

int8_t* codes_of(const Rows& rows, int64_t row, int inputs) { return rows.codes + 4 * row * inputs; }
int32_t* sums_of(const Rows& rows, int64_t row, int inputs) { return rows.sums + row * (inputs / BLOCK); }

Row row_of(const Rows& rows, int64_t row, int inputs, float* out) {
    return {codes_of(rows, row, inputs), sums_of(rows, row, inputs), rows.scales[row], nullptr, out};
}

void quantise(const Isa& isa, const float* values, int width, const Rows& rows, int64_t row) {
    isa.quantise(values, width, codes_of(rows, row, width), sums_of(rows, row, width), rows.scales + row);
}

// -- one function per instruction --------------------------------------------------------------------------------------

void embed(Machine& machine, const Embed& op, const Step& step) {
    machine.pool.each(step.num_tokens, 8, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; t++)
            for (int i = 0; i < op.width; i++)
                op.x[t * op.width + i] = widen(op.table[step.tokens[t] * op.width + i]);
    });
}

void norm(Machine& machine, const Norm& op, const Step& step) {
    const int count = op.sampled ? step.num_samples : step.num_tokens;
    machine.pool.each(count, 1, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row++) {
            const float* x = op.x + (op.sampled ? step.samples[row] : row) * op.width;
            float* normed = op.normed + row * op.width;
            machine.isa.norm(x, op.scale, op.width, op.epsilon, normed);
            if (op.rows.codes) quantise(machine.isa, normed, op.width, op.rows, row);
        }
    });
}

void quantise_rows(Machine& machine, const Quantise& op, const Step& step) {
    machine.pool.each(step.num_tokens, 1, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; t++) quantise(machine.isa, op.values + t * op.width, op.width, op.rows, t);
    });
}

void dense(Machine& machine, const Dense& op, const Step& step) {
    const int count = op.sampled ? step.num_samples : step.num_tokens;
    const int64_t tiles = round_up(op.outputs, TILE) / TILE, panels = round_up(count, PANEL) / PANEL;
    const int64_t tile_bytes = op.format == INT8   ? int8_tile_bytes(op.inputs)
                               : op.format == BF16 ? bf16_tile_bytes(op.inputs)
                                                   : mxfp4_tile_bytes(op.inputs);
    const auto kernel = op.format == INT8 ? machine.isa.int8 : op.format == BF16 ? machine.isa.bf16 : machine.isa.mxfp4;
    float* out = op.out ? op.out : step.logits;
    machine.pool.each(panels * tiles, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
            const int64_t tile = i % tiles, panel = i / tiles;
            const Tile weights = {op.weights + tile * tile_bytes, op.bias ? op.bias + tile * TILE : nullptr, op.inputs,
                                  bool(op.add)};
            const int last = int(std::min<int64_t>(count, (panel + 1) * PANEL));
            for (int first = int(panel * PANEL); first < last; first += MAX_ROWS) {
                Row rows[MAX_ROWS];
                const int n = std::min(MAX_ROWS, last - first);
                for (int r = 0; r < n; r++) {
                    const int64_t row = first + r;
                    float* to = out + (row * tiles + tile) * TILE;
                    if (op.format == BF16)
                        rows[r] = {nullptr, nullptr, 0.0f, op.values + row * op.inputs, to};
                    else
                        rows[r] = row_of(op.rows, row, op.inputs, to);
                }
                kernel(weights, rows, n);
            }
        }
    });
}

void rotate(float* head, const float* turn, int half, float scale) {
    for (int i = 0; i < half; i++) {
        const float cosine = turn[i], sine = turn[half + i], first = head[i], second = head[half + i];
        head[i] = (first * cosine - second * sine) * scale;
        head[half + i] = (second * cosine + first * sine) * scale;
    }
}

// Where a layer's queries, keys and values lie.
struct Layout {
    int padded_dim;
    int64_t row;                   // from token to token in qkv
    int64_t key_page, value_page;  // from page to page
    uint16_t *keys, *values;       // of the layer, page 0
    const int32_t* pages;          // of its kind, sequence 0

    Layout(int heads, int kv_heads, int head_dim, int layer, const Step& step)
        : padded_dim(int(round_up(head_dim, 32))),
          row(round_up((heads + 2 * kv_heads) * head_dim, TILE)),
          key_page(int64_t(PAGE) * kv_heads * head_dim),
          value_page(int64_t(PAGE) * kv_heads * padded_dim),
          keys(step.keys + layer / 2 * step.num_pages * key_page),
          values(step.values + layer / 2 * step.num_pages * value_page),
          pages(step.page_table + int64_t(layer % 2) * step.num_sequences * step.table_width) {}

    // Maxima, sums and weighted values of one token and one group of heads.
    int64_t seen_size(int group) const { return int64_t(group) * (padded_dim + 2); }
};

// Where element i of 32 lies in woven memory: 0 .. 15 in the low halves of 16 words, 16 .. 31 in the high ones.
int woven(int i) { return i < 16 ? 2 * i : 2 * (i - 16) + 1; }

void store(Machine& machine, const Store& op, const Step& step) {
    const Layout layout(op.heads, op.kv_heads, op.head_dim, op.layer, step);
    const int64_t half = op.head_dim / 2;
    if (op.layer == 0) {  // the same for all layers
        machine.rotation.resize(step.num_tokens * 2 * half);
        for (int t = 0; t < step.num_tokens; t++)
            for (int i = 0; i < half; i++) {
                const double angle = float(step.positions[t]) * op.frequencies[i];  // rounded to float32, as in training
                machine.rotation[2 * half * t + i] = float(std::cos(angle)) * op.concentration;
                machine.rotation[2 * half * t + half + i] = float(std::sin(angle)) * op.concentration;
            }
    }
    machine.pool.each(step.num_tokens, 4, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; t++) {
            const float* rotation = machine.rotation.data() + 2 * half * t;
            float* head = op.qkv + t * layout.row;
            for (int h = 0; h < op.heads; h++, head += op.head_dim) rotate(head, rotation, int(half), op.query_scale);
            const int64_t slot = step.slots[op.layer % 2 * step.num_tokens + t];
            uint16_t* keys = layout.keys + slot / PAGE * layout.key_page + woven(int(slot % PAGE));
            for (int h = 0; h < op.kv_heads; h++, head += op.head_dim) {
                rotate(head, rotation, int(half), 1.0f);
                for (int d = 0; d < op.head_dim; d++) keys[(h * op.head_dim + d) * PAGE] = to_bf16(head[d]);
            }
            uint16_t* values = layout.values + slot / PAGE * layout.value_page + slot % PAGE * layout.padded_dim;
            for (int h = 0; h < op.kv_heads; h++, head += op.head_dim, values += PAGE * layout.padded_dim)
                for (int d = 0; d < layout.padded_dim; d++)
                    values[d / 32 * 32 + woven(d % 32)] = d < op.head_dim ? to_bf16(head[d]) : 0;
        }
    });
}

// The part of attention that belongs to one key and value head and a few consecutive tokens.
class Queries {
public:
    Queries(const Isa& isa, const Attend& op, const Step& step, const Layout& layout, Tokens tokens, int kv_head)
        : tokens(tokens), isa(isa), op(op), step(step), layout(layout), kv_head(kv_head), group(op.heads / op.kv_heads) {}

    const Tokens tokens;

    int64_t first_segment() const { return first_key(0) / SEGMENT; }
    int64_t last_segment() const { return position(tokens.count - 1) / SEGMENT; }

    // What token t sees of a segment, as [group] maxima, [group] sums and [group, padded_dim] values.  False if nothing.
    bool attend(int t, int64_t segment, float* seen) const {
        const int64_t first = std::max(first_key(t), segment * SEGMENT);
        const int64_t last = std::min(position(t), (segment + 1) * SEGMENT - 1);
        if (first > last) return false;
        const Span span = {layout.keys + int64_t(PAGE) * kv_head * op.head_dim,
                           layout.values + int64_t(PAGE) * kv_head * layout.padded_dim,
                           layout.key_page,
                           layout.value_page,
                           layout.pages + int64_t(tokens.sequence) * step.table_width,
                           first,
                           last,
                           op.head_dim,
                           layout.padded_dim};
        const float* queries = op.qkv + (tokens.first + t) * layout.row + int64_t(kv_head) * group * op.head_dim;
        isa.segment(span, queries, group, seen, seen + group, seen + 2 * group);
        return true;
    }

    // Segment after segment, always in the same order.
    void fold(bool empty, float* whole, const float* seen) const {
        if (empty)
            std::copy(seen, seen + layout.seen_size(group), whole);
        else
            isa.merge(group, layout.padded_dim, whole, whole + group, whole + 2 * group, seen, seen + group, seen + 2 * group);
    }

    void finish(int t, float* whole) const {
        isa.finish(group, layout.padded_dim, op.sinks + kv_head * group, whole, whole + group, whole + 2 * group);
        float* out = op.out + (int64_t(tokens.first + t) * op.heads + kv_head * group) * op.head_dim;
        for (int h = 0; h < group; h++)
            std::copy_n(whole + 2 * group + h * layout.padded_dim, op.head_dim, out + h * op.head_dim);
    }

private:
    int64_t position(int t) const { return step.positions[tokens.first + t]; }
    int64_t first_key(int t) const { return op.window ? std::max<int64_t>(0, position(t) - op.window + 1) : 0; }

    const Isa& isa;
    const Attend& op;
    const Step& step;
    const Layout& layout;
    const int kv_head, group;
};

void attend(Machine& machine, const Attend& op, const Step& step) {
    const Layout layout(op.heads, op.kv_heads, op.head_dim, op.layer, step);
    const int64_t size = layout.seen_size(op.heads / op.kv_heads);
    const int64_t pieces = int64_t(machine.tokens.size()) * op.kv_heads;
    auto queries = [&](int64_t piece) {  // the last ones see most and come first
        const Tokens& tokens = machine.tokens[machine.tokens.size() - 1 - piece / op.kv_heads];
        return Queries(machine.isa, op, step, layout, tokens, int(piece % op.kv_heads));
    };

    if (step.num_tokens > step.num_sequences || pieces >= 4 * machine.pool.threads()) {
        machine.pool.each(pieces, 1, [&](int64_t begin, int64_t end) {
            std::vector<float> seen(size), whole(QUERY_TILE * size);
            for (int64_t piece = begin; piece < end; piece++) {
                const Queries q = queries(piece);
                bool empty[QUERY_TILE];
                std::fill_n(empty, QUERY_TILE, true);
                for (int64_t segment = q.first_segment(); segment <= q.last_segment(); segment++)
                    for (int t = 0; t < q.tokens.count; t++)
                        if (q.attend(t, segment, seen.data())) {
                            q.fold(empty[t], &whole[t * size], seen.data());
                            empty[t] = false;
                        }
                for (int t = 0; t < q.tokens.count; t++) q.finish(t, &whole[t * size]);
            }
        });
        return;
    }

    // A few decodes for many threads: their segments are shared out, and folded when all are there.
    int64_t most = 1;
    for (int64_t piece = 0; piece < pieces; piece++)
        most = std::max(most, queries(piece).last_segment() - queries(piece).first_segment() + 1);
    machine.partials.resize(pieces * most * size);
    machine.pool.each(pieces * most, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
            const Queries q = queries(i / most);
            const int64_t segment = q.first_segment() + i % most;
            if (segment <= q.last_segment()) q.attend(0, segment, machine.partials.data() + i * size);
        }
    });
    machine.pool.each(pieces, 4, [&](int64_t begin, int64_t end) {
        std::vector<float> whole(size);
        for (int64_t piece = begin; piece < end; piece++) {
            const Queries q = queries(piece);
            const int64_t count = q.last_segment() - q.first_segment() + 1;
            for (int64_t s = 0; s < count; s++)
                q.fold(s == 0, whole.data(), machine.partials.data() + (piece * most + s) * size);
            q.finish(0, whole.data());
        }
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
        for (int32_t expert = 0; expert < to.experts; expert++) {  // insertion: of equals, the first expert stays ahead
            int at = count < to.used ? count++ : to.used;
            for (; at > 0 && logits[expert] > logits[chosen[at - 1]]; at--)
                if (at < to.used) chosen[at] = chosen[at - 1];
            if (at < to.used) chosen[at] = expert;
        }
        float total = 0.0f;
        for (int a = 0; a < to.used; a++) total += shares[a] = float(std::exp(double(logits[chosen[a]] - logits[chosen[0]])));
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

void experts(Machine& machine, const Experts& op, const Step&) {
    const Assignment& to = op.assignment;
    const int64_t tiles = round_up(op.outputs, TILE) / TILE, tile_bytes = mxfp4_tile_bytes(op.inputs);
    std::vector<int32_t> active;
    for (int32_t expert = 0; expert < to.experts; expert++)
        if (to.starts[expert] < to.starts[expert + 1]) active.push_back(expert);
    // All experts in one region: four regions of one expert each are 10% slower.
    machine.pool.each(int64_t(active.size()) * tiles, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
            const int64_t expert = active[i / tiles], tile = i % tiles;
            const Tile weights = {op.weights + (expert * tiles + tile) * tile_bytes,
                                  op.bias + (expert * tiles + tile) * TILE, op.inputs, false};
            const int last = to.starts[expert + 1];
            for (int first = to.starts[expert]; first < last; first += MAX_ROWS) {
                Row rows[MAX_ROWS];
                const int n = std::min(MAX_ROWS, last - first);
                for (int r = 0; r < n; r++) {
                    const int64_t pair = to.pairs[first + r];
                    rows[r] = row_of(op.rows, op.by_token ? pair / to.used : pair, op.inputs,
                                     op.out + (pair * tiles + tile) * TILE);
                }
                machine.isa.mxfp4(weights, rows, n);
            }
        }
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
            machine.isa.combine(op.values + t * op.used * op.width, op.shares + t * op.used, op.used, op.width,
                                op.x + t * op.width);
    });
}

// The columns a row of logits is to be rescored in: the best ones, of equals the first.
std::vector<int32_t> best(const float* logits, const float* maxima, int64_t blocks, int vocabulary, int count) {
    // The count best columns lie in blocks whose maximum is at least the count-th best maximum.
    float threshold = -INFINITY;
    if (blocks > count) {
        std::vector<float> ordered(maxima, maxima + blocks);
        std::nth_element(ordered.begin(), ordered.begin() + count - 1, ordered.end(), std::greater<float>());
        threshold = ordered[count - 1];
    }
    std::vector<int32_t> columns;
    for (int64_t b = 0; b < blocks; b++)
        if (maxima[b] >= threshold)
            for (int32_t i = int32_t(b * 32); i < std::min<int64_t>(vocabulary, b * 32 + 32); i++)
                if (logits[i] >= threshold) columns.push_back(i);
    auto better = [&](int32_t a, int32_t b) { return logits[a] > logits[b] || (logits[a] == logits[b] && a < b); };
    if (int64_t(columns.size()) > count) {
        std::nth_element(columns.begin(), columns.begin() + count, columns.end(), better);
        columns.resize(count);
    }
    return columns;
}

void rescore(Machine& machine, const Rescore& op, const Step& step) {
    const int64_t stride = round_up(op.vocabulary, TILE), blocks = stride / 32;
    const int rows = step.num_samples, count = std::min(op.candidates, op.vocabulary);
    machine.block_maxima.resize(rows * blocks);
    machine.unwoven.resize(int64_t(rows) * op.width);
    for (int64_t row = 0; row < rows; row++)  // columns past the vocabulary can win nothing
        std::fill(step.logits + row * stride + op.vocabulary, step.logits + (row + 1) * stride, -INFINITY);
    machine.pool.each(rows * blocks, 512, [&](int64_t begin, int64_t end) {
        machine.isa.maxima(step.logits + begin * 32, end - begin, machine.block_maxima.data() + begin);
    });
    std::vector<std::vector<int32_t>> columns(rows);
    machine.pool.each(rows, 1, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row++) {
            columns[row] = best(step.logits + row * stride, machine.block_maxima.data() + row * blocks, blocks, op.vocabulary, count);
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
            step.logits[row * stride + column] =
                machine.isa.dot(op.table + column * op.width, machine.unwoven.data() + row * op.width, op.width);
        }
    });
}

// Consecutive tokens of one sequence, at most QUERY_TILE of them, in the order of the batch.
void cut(Machine& machine, const Step& step) {
    machine.tokens.clear();
    for (int s = 0; s < step.num_sequences; s++)
        for (int first = step.starts[s]; first < step.starts[s + 1]; first += QUERY_TILE)
            machine.tokens.push_back({s, first, std::min(QUERY_TILE, step.starts[s + 1] - first)});
}

void execute(Machine& machine, const Instruction& instruction, const Step& step) {
    const void* operands = instruction.operands;
    switch (Opcode(instruction.opcode)) {
        case EMBED: return embed(machine, *static_cast<const Embed*>(operands), step);
        case NORM: return norm(machine, *static_cast<const Norm*>(operands), step);
        case QUANTISE: return quantise_rows(machine, *static_cast<const Quantise*>(operands), step);
        case DENSE: return dense(machine, *static_cast<const Dense*>(operands), step);
        case STORE: return store(machine, *static_cast<const Store*>(operands), step);
        case ATTEND: return attend(machine, *static_cast<const Attend*>(operands), step);
        case ROUTE: return route(machine, *static_cast<const Route*>(operands), step);
        case EXPERTS: return experts(machine, *static_cast<const Experts*>(operands), step);
        case ACTIVATE: return activate(machine, *static_cast<const Activate*>(operands), step);
        case COMBINE: return combine(machine, *static_cast<const Combine*>(operands), step);
        case RESCORE: return rescore(machine, *static_cast<const Rescore*>(operands), step);
        case OPCODES: return;
    }
}

}  // namespace

extern "C" int64_t gptoss_run(Machine* machine, Instruction* program, int length, const Step* step) {
    for (int i = 0; i < length; i++)
        if (program[i].opcode == EMBED)
            for (int64_t t = 0; t < step->num_tokens; t++)
                if (step->tokens[t] < 0 || step->tokens[t] >= static_cast<const Embed*>(program[i].operands)->vocabulary)
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
