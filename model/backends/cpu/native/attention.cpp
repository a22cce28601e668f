// Writes keys and values into pages, and computes attention over them.
#include "abi.h"
#include "bf16.h"
#include "layout.h"
#include "machine.h"

#include <algorithm>
#include <cmath>

namespace {

constexpr int QUERY_TILE = 16;  // tokens that pass over a segment of keys before the next

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

// The part of attention that belongs to one key and value head and a few consecutive tokens.
class Queries {
public:
    Queries(const Isa& isa, const Attend& op, const Step& step, const Layout& layout, Tokens tokens,
            int kv_head)
        : tokens(tokens),
          isa(isa),
          op(op),
          step(step),
          layout(layout),
          kv_head(kv_head),
          group(op.heads / op.kv_heads) {}

    const Tokens tokens;

    int64_t first_segment() const { return first_key(0) / SEGMENT; }
    int64_t last_segment() const { return position(tokens.count - 1) / SEGMENT; }

    // What token t sees of a segment, as [group] maxima, [group] sums and [group, padded_dim] values.  False
    // if nothing.
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
                           t + 1 < tokens.count ? last : position(t),
                           op.head_dim,
                           layout.padded_dim};
        const float* queries =
            op.qkv + (tokens.first + t) * layout.row + int64_t(kv_head) * group * op.head_dim;
        isa.segment(span, queries, group, seen, seen + group, seen + 2 * group);
        return true;
    }

    // Segment after segment, always in the same order.
    void fold(bool empty, float* whole, const float* seen) const {
        if (empty)
            std::copy(seen, seen + layout.seen_size(group), whole);
        else
            isa.merge(group, layout.padded_dim, whole, whole + group, whole + 2 * group, seen, seen + group,
                      seen + 2 * group);
    }

    void finish(int t, float* whole) const {
        isa.finish(group, layout.padded_dim, op.sinks + kv_head * group, whole, whole + group,
                   whole + 2 * group);
        float* out = op.out + (int64_t(tokens.first + t) * op.heads + kv_head * group) * op.head_dim;
        for (int h = 0; h < group; h++)
            std::copy_n(whole + 2 * group + h * layout.padded_dim, op.head_dim, out + h * op.head_dim);
    }

private:
    int64_t position(int t) const { return step.positions[tokens.first + t]; }
    int64_t first_key(int t) const {
        return op.window ? std::max<int64_t>(0, position(t) - op.window + 1) : 0;
    }

    const Isa& isa;
    const Attend& op;
    const Step& step;
    const Layout& layout;
    const int kv_head, group;
};

}  // namespace

void cut(Machine& machine, const Step& step) {
    machine.tokens.clear();
    for (int s = 0; s < step.num_sequences; s++)
        for (int first = step.starts[s]; first < step.starts[s + 1]; first += QUERY_TILE)
            machine.tokens.push_back({s, first, std::min(QUERY_TILE, step.starts[s + 1] - first)});
}

void store(Machine& machine, const Store& op, const Step& step) {
    const Layout layout(op.heads, op.kv_heads, op.head_dim, op.layer, step);
    const int64_t half = op.head_dim / 2;
    if (op.layer == 0) {  // the same for all layers
        machine.rotation.resize(step.num_tokens * 2 * half);
        for (int t = 0; t < step.num_tokens; t++)
            for (int i = 0; i < half; i++) {
                // Rounded to float32, as in training.
                const double angle = float(step.positions[t]) * op.frequencies[i];
                machine.rotation[2 * half * t + i] = float(std::cos(angle)) * op.concentration;
                machine.rotation[2 * half * t + half + i] = float(std::sin(angle)) * op.concentration;
            }
    }
    machine.pool.each(step.num_tokens, 4, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; t++) {
            const float* rotation = machine.rotation.data() + 2 * half * t;
            float* head = op.qkv + t * layout.row;
            for (int h = 0; h < op.heads; h++, head += op.head_dim)
                rotate(head, rotation, int(half), op.query_scale);
            const int64_t slot = step.slots[op.layer % 2 * step.num_tokens + t];
            uint16_t* keys = layout.keys + slot / PAGE * layout.key_page + woven(int(slot % PAGE));
            for (int h = 0; h < op.kv_heads; h++, head += op.head_dim) {
                rotate(head, rotation, int(half), 1.0f);
                for (int d = 0; d < op.head_dim; d++) keys[(h * op.head_dim + d) * PAGE] = to_bf16(head[d]);
            }
            uint16_t* values =
                layout.values + slot / PAGE * layout.value_page + slot % PAGE * layout.padded_dim;
            for (int h = 0; h < op.kv_heads; h++, head += op.head_dim, values += PAGE * layout.padded_dim)
                for (int d = 0; d < layout.padded_dim; d++)
                    values[d / 32 * 32 + woven(d % 32)] = d < op.head_dim ? to_bf16(head[d]) : 0;
        }
    });
}

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
