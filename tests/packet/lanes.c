/* Flow hashes, for test_lanes.py: the secret, then keys in whole words on stdin, as many as fit the
 * lanes each time; hashes on stdout.
 *
 *   lanes WORDS       exit status 2: this machine has no lanes */
#include <stdio.h>
#include <stdlib.h>

#include "_lanes.h"

#define WORDS_MOST 5

AVX2 static int hash_all(uint32_t words, const struct lbfwd_siphash *seed)
{
    uint8_t keys[LBFWD_LANES][8 * WORDS_MOST];
    const uint8_t *const at[LBFWD_LANES] = {keys[0], keys[1], keys[2], keys[3]};
    uint64_t hashes[LBFWD_LANES];

    for (;;) {
        for (uint32_t lane = 0; lane < LBFWD_LANES; lane++)
            if (fread(keys[lane], 8, words, stdin) != words)
                return lane ? 1 : 0;
        flow_hash_lanes(at, words, seed, hashes);
        if (fwrite(hashes, sizeof hashes, 1, stdout) != 1)
            return 1;
    }
}

int main(int argc, char **argv)
{
    uint64_t secret[2];
    struct lbfwd_siphash seed;
    uint32_t words = argc == 2 ? (uint32_t)atoi(argv[1]) : 0;

    if (!have_lanes())
        return 2;
    if (!words || words > WORDS_MOST || fread(secret, sizeof secret, 1, stdin) != 1)
        return 1;
    seed = siphash_seed(secret);
    return hash_all(words, &seed);
}
