// Included where Lanes is defined, see arithmetic.h.

#include "isa.h"

namespace {

// A finished sum of products becomes an output.
inline void emit(const Tile& tile, const Row& row, Lanes sum) {
    if (tile.bias) sum = add(sum, load(tile.bias));
    if (tile.add) sum = add(load(row.out), sum);
    store(row.out, sum);
}

}  // namespace
