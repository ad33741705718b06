"""At least 95 % of the lines that a packet can pass are passed by the packet tests."""

import shutil

import pytest

from tests.coverage import measure


@pytest.mark.slow
def test_the_step_headers_are_covered() -> None:
    for tool in ("gcc", "gcov"):
        if not shutil.which(tool):
            pytest.skip(f"needs {tool}")
    headers = measure.measure()
    assert {"_parse.h", "_flow.h", "_emit.h", "_rx.h", "_tx.h"} <= headers.keys()
    assert measure.total(headers) >= measure.LEAST, "\n".join(measure.rows(headers))
