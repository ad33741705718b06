/* _ring.h and _fleet.h for C: they have no guards of their own, since cffi reads them verbatim. */
#ifndef LBFWD_CONTRACT_H
#define LBFWD_CONTRACT_H

#include <stdint.h>

#include "_ring.h"

#include "_fleet.h"

#endif
