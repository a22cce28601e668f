// Runs one step that tests/model/backends/cpu/step_file.py wrote, on whatever this program was compiled for.
//
//     run_step FILE ISA THREADS > RESULT      writes the bytes that the step was to compute
//
// The file is a header, the places of pointers in the memory, and the memory, in which every pointer is the
// distance from its beginning.
#include "abi.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

struct Header {
    int64_t memory, pointers, program, length, step, result, result_bytes;
};

[[noreturn]] void fail(const char* reason) {
    std::fprintf(stderr, "run_step: %s; this processor runs %s\n", reason, gptoss_isas());
    std::exit(1);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) fail("give FILE, ISA and THREADS");
    std::FILE* file = std::fopen(argv[1], "rb");
    Header header;
    if (!file || std::fread(&header, sizeof header, 1, file) != 1) fail("the file cannot be read");
    std::vector<int64_t> pointers(header.pointers);
    uint8_t* memory = static_cast<uint8_t*>(std::aligned_alloc(64, header.memory));
    if (std::fread(pointers.data(), 8, pointers.size(), file) != pointers.size() ||
        std::fread(memory, 1, header.memory, file) != size_t(header.memory))
        fail("the file is too short");
    std::fclose(file);
    for (int64_t place : pointers) {
        int64_t distance;
        std::memcpy(&distance, memory + place, 8);
        const uint8_t* pointer = memory + distance;
        std::memcpy(memory + place, &pointer, 8);
    }

    Machine* machine = gptoss_open(std::atoi(argv[3]), argv[2]);
    if (!machine) fail("no such instruction set here");
    gptoss_prompt_bits(machine, 8);
    Instruction* program = reinterpret_cast<Instruction*>(memory + header.program);
    if (gptoss_run(machine, program, int(header.length), reinterpret_cast<Step*>(memory + header.step)))
        fail("a token is not in the vocabulary");
    gptoss_close(machine);
    std::fwrite(memory + header.result, 1, header.result_bytes, stdout);
    std::free(memory);
    return std::fflush(stdout);
}
