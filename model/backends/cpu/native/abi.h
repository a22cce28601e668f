// The interface between Python and the library: plain C structs, with the same fields as in ../program.py.
//
// A program is a flat array of instructions and is built once.  A step runs it over the batch that `Step`
// describes.  All instructions write to memory that Python has allocated; the library has only its threads and a
// little scratch memory.
//
// Letters as in the rest of the project: T tokens, S sequences, N sampled rows, P pages of the longest
// sequence, H query heads, KV key and value heads, D width of a head, C hidden width, F width inside an
// expert, E experts, A experts a token uses, V vocabulary.  C, F and H * D are multiples of 32, D of 2.
//
// If several ranks compute one model (model/parallel), H, KV, V and the experts' weights are those of this rank.
// E counts all experts: each rank chooses among all, and computes its own.
#pragma once

#include <cstdint>

constexpr int ABI_VERSION = 4;  // raise it with every change below
constexpr int PAGE = 32;        // positions in a page of the KV cache: the lanes of one product with the keys

enum Opcode : int32_t {
    EMBED,
    NORM,
    QUANTISE,
    DENSE,
    STORE,
    ATTEND,
    ROUTE,
    EXPERTS,
    ACTIVATE,
    COMBINE,
    DECIDE,
    RESCORE,
    CLEAR,
    ADD_UP,
    OPCODES
};

enum Format : int32_t { MXFP4, INT8, BF16, HIGH, LOW, FORMATS };

// The rows of a step that an instruction computes.
enum Which : int32_t {
    ALL,      // all T tokens
    SAMPLED,  // the rows in Step.samples
    WHOLE     // those of them that Decide chose
};

// Rows of activations as 16-bit integers: x = scale * code.  The order of the codes depends on the
// instruction set.  Tokens of prompts may have 8-bit codes instead, with a scale for each block.
struct Rows {
    int8_t* codes;  // [rows, 4 * inputs]  bytes
    int32_t* sums;  // [rows, inputs / 32] of the codes of each block of 32 columns
    float* scales;  // [rows]
    float* blocks;  // [rows, inputs / 32]  scales of 8-bit codes
};

struct Embed {              // x = table[token - first]; 0 if another rank has that row
    const uint16_t* table;  // [V, C]  bf16
    float* x;               // [T, C]
    int32_t width, vocabulary, first, all;  // V of this rank, its first row, V of all ranks
};

struct Norm {                // RMSNorm; the result also as rows of codes
    const float* x;          // [T, C]
    const float* scale;      // [C]
    float* normed;           // [T or N, C], or null
    Rows rows;               // of the result; codes may be null
    int32_t width, which;  // ALL or SAMPLED
    float epsilon;
};

struct Quantise {         // values → rows of codes
    const float* values;  // [T, width]
    Rows rows;
    int32_t width;
};

struct Dense {               // out = rows @ weights.T + bias; with `add`, out += the same
    const uint8_t* weights;  // tiles of 32 outputs, see layout.h
    const float* bias;       // [outputs rounded up to 32], or null
    Rows rows;               // read by MXFP4 and INT8
    const float* values;     // [T or N, inputs]  read by BF16
    float* out;              // [T or N, outputs rounded up to 32]; null: Step.logits
    int32_t format, inputs, outputs, which, add;
};

struct Store {   // rotate queries and keys in place, scale the queries, append keys and values to the cache
    float* qkv;  // [T, (H + 2 KV) * D rounded up to 32]
    const float* frequencies;  // [D / 2]  radians per position
    int32_t layer, heads, kv_heads, head_dim;
    float concentration, query_scale;
};

struct Attend {          // causal grouped-query attention over pages, with a learned sink per head
    const float* qkv;    // [T, (H + 2 KV) * D rounded up to 32]
    const float* sinks;  // [H]
    float* out;          // [T, H * D]
    int32_t layer, heads, kv_heads, head_dim, window;  // window 0: all
};

struct Assignment {   // which experts compute which tokens; pair = token * A + rank
    int32_t* chosen;  // [T, A]  experts, best first
    float* shares;    // [T, A]  softmax over the chosen
    int32_t* starts;  // [E + 1] expert e computes pairs[starts[e] : starts[e + 1]]
    int32_t* pairs;   // [T * A]
    int32_t experts, used;  // E, A
    int32_t first, own;     // experts [first, first + own) are this rank's
};

struct Route {
    const float* logits;  // [T, E rounded up to 32]
    Assignment assignment;
};

struct Experts {             // out[pair] = weights[expert] @ row + bias[expert]; 0 if another rank has it
    const uint8_t* weights;  // [own, tiles, bytes of a tile]  MXFP4
    const float* bias;       // [own, outputs rounded up to 32]
    Rows rows;               // [T] rows if by_token, else [T * A]
    float* out;              // [T * A, outputs rounded up to 32]
    Assignment assignment;
    int32_t inputs, outputs, by_token;
};

struct Activate {         // clamped SwiGLU, in place; the result also as rows of codes
    float* values;        // [T * A, 2F]  each 32: 16 gates, then their 16 values
    Rows rows;            // [T * A]
    int32_t width, used;  // F, A
    float limit, alpha;
};

struct Combine {          // x += sum of shares * values
    const float* values;  // [T * A, C]
    const float* shares;  // [T, A]
    float* x;             // [T, C]
    int32_t width, used;
};

// Decides, from the logits of HIGH weights, which rows need exact logits: those in which all tokens but the best
// `candidates` together have more than `tail` of the probability at the row's temperature.
struct Decide {
    int32_t vocabulary, candidates;
    float tail;
};

struct Rescore {            // computes the best `candidates` logits of each row again, from the bf16 weights
    const float* normed;    // [N, C]
    const uint16_t* table;  // [V, C]  bf16
    int32_t width, vocabulary, candidates;
};

struct Clear {  // x = 0
    float* x;   // [T, width]
    int32_t width;
};

struct AddUp {                       // the sum over all ranks
    int32_t (*add_up)(int64_t rows);  // computes it for so many rows; any result but 0 ends the step
};

struct Instruction {
    int32_t opcode;
    const void* operands;  // one of the structs above
    int64_t nanoseconds;   // total time of all steps
};

struct Step {                   // the batch, see model/batch.py
    const int64_t* tokens;      // [T]
    const int64_t* positions;   // [T]
    const int64_t* slots;       // [2, T]
    const int64_t* samples;     // [N]
    const int32_t* starts;      // [S + 1]
    const int32_t* page_table;  // [2, S, P]
    uint16_t* keys;             // [ceil(L / 2), pages] of bf16 [KV, D, 32], woven
    uint16_t* values;           // [ceil(L / 2), pages] of bf16 [KV, 32, D rounded up to 32], woven
    float* logits;              // [N, V rounded up to 32]
    const float* temperatures;  // [N], see model/batch.py, or null
    const int32_t* prompts;     // [S] how many positions of each sequence belong to its prompt; null: none
    int64_t num_pages;
    int32_t num_tokens, num_sequences, num_samples, table_width;
};

#pragma GCC visibility push(default)
extern "C" {
struct Machine;

const char* gptoss_sources();  // the digest of the source files, see toolchain.py

// The version; sizes of the structs in the order of OPCODES, then Instruction and Step.
int gptoss_abi(int32_t* sizes);
const char* gptoss_isas();  // the instruction sets that this processor can run, best first, separated by spaces

Machine* gptoss_open(int threads, const char* isa);  // null if this processor cannot run it
void gptoss_close(Machine*);
void gptoss_prompt_bits(Machine*, int bits);  // bits of the activations of prompts: 16 (the default) or 8
void gptoss_prefetch(Machine*, int wanted);  // whether to prefetch weights in steps of one token; on by default

// Returns 0; 1 + the index of a token that is not in the vocabulary; or -1 if `add_up` has ended the step.
int64_t gptoss_run(Machine*, Instruction* program, int length, const Step*);

int64_t gptoss_packed_bytes(int format, int64_t outputs, int64_t inputs);
void gptoss_pack_mxfp4(Machine*, const uint8_t* blocks, const uint8_t* scales, int64_t matrices,
                       int64_t outputs, int64_t inputs, int paired, uint8_t* out);
void gptoss_pack_dense(Machine*, int format, const uint16_t* weights, int64_t outputs, int64_t inputs,
                       uint8_t* out);

double gptoss_read_bandwidth(Machine*, const uint8_t* data, int64_t bytes);  // bytes per second of one pass
}
#pragma GCC visibility pop
