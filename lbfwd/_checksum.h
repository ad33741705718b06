/* The Internet checksum (RFC 1071), summed in 64 bits. */
#ifndef LBFWD_CHECKSUM_H
#define LBFWD_CHECKSUM_H

#include "_bytes.h"

/* Adds the bytes, as 16-bit words in memory order, to a running sum. */
static inline uint64_t checksum_add(uint64_t sum, const uint8_t *at, uint32_t length)
{
    while (length >= 8) {
        uint64_t word = load_u64(at);
        sum += word;
        sum += sum < word; /* end-around carry */
        at += 8;
        length -= 8;
    }
    if (length) {
        uint64_t word = 0;
        memcpy(&word, at, length);
        sum += word;
        sum += sum < word;
    }
    return sum;
}

/* Folds to 16 bits, still in memory order and not yet complemented. */
static inline uint16_t checksum_fold(uint64_t sum)
{
    uint32_t half;

    /* A word and its halves swapped: the upper half of their sum has the lower one's carry. */
    sum += sum >> 32 | sum << 32;
    half = (uint32_t)(sum >> 32);
    half += half >> 16 | half << 16;
    return (uint16_t)(half >> 16);
}

/* The same for a sum of few words. */
static inline void checksum_store_short(uint8_t *at, uint32_t sum)
{
    uint16_t value;

    sum += sum >> 16 | sum << 16;
    value = (uint16_t)~(sum >> 16);
    memcpy(at, &value, sizeof value);
}

static inline void checksum_store(uint8_t *at, uint64_t sum)
{
    uint16_t value = (uint16_t)~checksum_fold(sum);
    memcpy(at, &value, sizeof value);
}

/* A UDP checksum of 0 means "none" (RFC 768, RFC 8200 section 8.1): 0xffff stands for it. */
static inline void checksum_store_udp(uint8_t *at, uint64_t sum)
{
    uint16_t value = (uint16_t)~checksum_fold(sum);
    if (value == 0)
        value = 0xffff;
    memcpy(at, &value, sizeof value);
}

#endif
