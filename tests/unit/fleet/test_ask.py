"""All nodes are asked at once: what is asked about waits in etcd for one answer's time only."""

import asyncio

from pydantic import BaseModel

from lbfwd.fleet.ask import ask_all

NODES = 100
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\n{"number":1}'


class Said(BaseModel):
    number: int


def test_no_node_waits_until_another_one_has_answered() -> None:
    """None answers before all are asked."""
    asked: list[asyncio.StreamWriter] = []

    async def listen(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(writer)
        if len(asked) == NODES:
            for each in asked:
                each.write(ANSWER)
                each.close()

    async def ask() -> list[Said | None]:
        async with await asyncio.start_server(listen, "127.0.0.1", 0, backlog=NODES) as server:
            port = server.sockets[0].getsockname()[1]
            nodes = {f"lb{n}": f"127.0.0.1:{port}" for n in range(NODES)}
            answers = await asyncio.to_thread(ask_all, nodes, "/v1/any", Said)
            return [answer.found for answer in answers]

    assert asyncio.run(ask()) == [Said(number=1)] * NODES
