/*
 * The programs, their groups and checksums. A sum belongs to the binary and not to the machine: no
 * program uses what IEEE 754 or the manual leaves open, and there is no contraction (meson.build).
 * system is where a guest's kernel works most; in kernel are those that overlap with it.
 */
#include "xbench.h"

/* clang-format off */
const struct program programs[] = {
    {"syscall",  "system",    120, 0x2710u, syscall_round, NULL, NULL},
    {"exec",     "system",    150, 0x4u, exec_round, exec_setup, NULL},
    {"pipe",     "system",     80, 0xd3c6cb99u, pipe_round, pipe_setup, NULL},
    {"fault",    "system",     24, 0x1000u, fault_round, fault_setup, NULL},
    {"signal",   "system",     40, 0x7d0u, signal_round, signal_setup, NULL},
    {"mmap",     "kernel",     40, 0x708u, mmap_round, NULL, NULL},
    {"switch",   "kernel",     80, 0x965a45du, switch_round, switch_setup, NULL},
    {"nbody",    "float",     300, 0x90dac69e43a4d435u, nbody_round, NULL, NULL},
    {"matsse",   "float",    1500, 0x742af92f16725094u, matsse_round, matsse_setup, NULL},
    {"x87",      "float",     800, 0x840bc8e6954660b3u, x87_round, NULL, NULL},
    {"avx2",     "float",    4000, 0x2eddfe3356d82b73u, avx2_round, avx2_setup, avx2_unfit},
    {"stride",   "plain",     600, 0x142e57d55b748a5eu, stride_round, stride_setup, NULL},
    {"fib",      "calls",    3000, 0x6ff1u, fib_round, NULL, NULL},
    {"virtual",  "calls",     600, 0x8c0a96eu, virtual_round, virtual_setup, NULL},
    {"indirect", "calls",     400, 0x51f3b773cff7a22au, indirect_round, indirect_setup, NULL},
    {"movs",     "strings",   150, 0xd7619149bdd19f6du, movs_round, copy_setup, NULL},
    {"stos",     "strings",  1500, 0x17bf77dd35ebbde7u, stos_round, copy_setup, NULL},
    {"libc",     "strings",  1500, 0x781fcc08b2cb2888u, libc_round, libc_setup, NULL},
    {"scan",     "strings",   400, 0xca901f92140c5433u, scan_round, scan_setup, NULL},
    {"ssecopy",  "plain",    3000, 0x9cb6cc27c26c2efu, ssecopy_round, copy_setup, NULL},
    {"awk",      "plain",     300, 0x1a2adaf3e41daf43u, awk_round, awk_setup, NULL},
    {"list",     "plain",     130, 0x2a226f964b90f35u, list_round, list_setup, NULL},
    {"matint",   "plain",    1500, 0xec6521ed331a1774u, matint_round, matint_setup, NULL},
    {"crc32",    "plain",     400, 0xcb25e44cu, crc32_round, crc32_setup, NULL},
    {"state",    "plain",     800, 0x8e10dbe8527d100eu, state_round, state_setup, NULL},
    {"sort",     "plain",     300, 0x5517080a26177c9u, sort_round, sort_setup, NULL},
    {"qsort",    "plain",     150, 0x5517080a26177c9u, qsort_round, sort_setup, NULL},
    {"hash",     "plain",     600, 0xaabaaaau, hash_round, hash_setup, NULL},
    {"interp",   "plain",    1000, 0xef372fee363bdf4au, interp_round, NULL, NULL},
    {"sieve",    "plain",     200, 0xb4273a2f95616deu, sieve_round, NULL, NULL},
    {"sha256",   "plain",      80, 0x173fe7fbeb3c5673u, sha256_round, sha256_setup, NULL},
    {"pack",     "plain",     300, 0xf76375f0a3463e57u, pack_round, lz_setup, NULL},
    {"unpack",   "plain",     300, 0xf56898f7dc5acd1bu, unpack_round, lz_setup, NULL},
    {"chase",    "plain",      80, 0x89c3b5ae389cd146u, chase_round, chase_setup, NULL},
};
/* clang-format on */

const size_t program_count = sizeof(programs) / sizeof(programs[0]);
