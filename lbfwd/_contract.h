/* _ring.h for C: it has no guard of its own, since cffi reads it verbatim. */
#ifndef LBFWD_CONTRACT_H
#define LBFWD_CONTRACT_H

#include <stdint.h>

#include "_ring.h"

#endif
