"""The reader of the guide: what it takes for what, and that it overlooks nothing."""

import pytest

from tests.topology.guide.blocks import blocks

GUIDE = """\
```
a picture
```
<!-- file: /etc/a lb1 lb2 -->
```toml
a = 1
```
<!-- look: lb1; only: frr -->
```sh
ip route
```

```text
default … dev eth0
  nexthop
```
<!-- skip: why: no such device -->
```sh
modprobe x
```
"""


def test_blocks_and_what_they_show() -> None:
    file, look, skip = blocks(GUIDE)
    assert (file.verb, file.hosts, file.text, file.line) == ("file", ["lb1", "lb2"], "a = 1\n", 4)
    assert (look.verb, look.hosts, look.only) == ("look", ["lb1"], "frr")
    assert (skip.verb, skip.rest) == ("skip", "why: no such device")
    assert look.shown_by("x\ndefault via 192.0.2.1  dev eth0 metric 1\n\tnexthop via a\n")
    assert not look.shown_by("nexthop\ndefault via 192.0.2.1 dev eth0")
    assert not look.shown_by("default via\n192.0.2.1 dev eth0\nnexthop")


@pytest.mark.parametrize(
    "text",
    [
        "```sh\nrm -rf /\n```\n",
        "<!-- runs: lb1 -->\n```sh\nls\n```\n",
        "<!-- run: lb1 -->\n```sh\nls\n```\n```text\na\n```\n",
        "<!-- look: lb1 -->\n```sh\nls\n```\n",
    ],
)
def test_what_would_not_be_run_as_it_seems_is_refused(text: str) -> None:
    with pytest.raises(AssertionError):
        blocks(text)
