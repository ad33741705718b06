/* Unaligned loads and stores in network order, and the one bounds-checked cursor. */
#ifndef LBFWD_BYTES_H
#define LBFWD_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* The packet path is one function to the compiler, and what is rare stays out of its way. */
#define STEP static inline __attribute__((always_inline))
#define RARE static __attribute__((noinline, cold, unused))

static inline uint16_t load_be16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return __builtin_bswap16(value);
}

static inline uint32_t load_be32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return __builtin_bswap32(value);
}

static inline uint16_t load_u16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static inline uint32_t load_u32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static inline uint64_t load_u64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static inline void store_be16(uint8_t *at, uint16_t value)
{
    value = __builtin_bswap16(value);
    memcpy(at, &value, sizeof value);
}

static inline void store_be32(uint8_t *at, uint32_t value)
{
    value = __builtin_bswap32(value);
    memcpy(at, &value, sizeof value);
}

struct lbfwd_cursor {
    const uint8_t *at;
    uint32_t left;
};

/* The next n bytes, or NULL when there are fewer. */
static inline const uint8_t *take(struct lbfwd_cursor *cursor, uint32_t n)
{
    const uint8_t *taken = cursor->at;
    if (UNLIKELY(cursor->left < n))
        return NULL;
    cursor->at += n;
    cursor->left -= n;
    return taken;
}

/* The value is read and written by two processes: one word, never torn. */
#define READ_SHARED(place) __atomic_load_n(&(place), __ATOMIC_ACQUIRE)
#define WRITE_SHARED(place, value) __atomic_store_n(&(place), (value), __ATOMIC_RELEASE)
/* A statistic with a single writer: readers may be late, never torn. */
#define ADD_COUNT(place, n) __atomic_store_n(&(place), (place) + (n), __ATOMIC_RELAXED)

#endif
