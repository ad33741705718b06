/* Vacancies in two buckets, for test_vacancy.py: cases on stdin, a byte for each on stdout. */
#include <stdio.h>

#include "_vacancy.h"

struct test_case {
    uint16_t lifetimes_s[8];
    uint64_t now_s;
    struct lbfwd_flow_bucket buckets[2];
};

int main(void)
{
    struct test_case t;

    while (fread(&t, sizeof t, 1, stdin) == 1) {
        struct lbfwd_flow_context context = flow_context_at(t.lifetimes_s, (uint16_t)t.now_s);
        putchar((int)vacancies(&t.buckets[0], &t.buckets[1], &context));
    }
    return !feof(stdin);
}
