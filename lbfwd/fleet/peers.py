"""Does another node take fragments? Asked by its read-only listener. The judgement is pure."""

import asyncio
from dataclasses import dataclass, replace

import aiohttp
from pydantic import BaseModel, ConfigDict

ANSWER_S = 0.9
MISSES = 3
ANSWERS = 2
_LONGEST = 65536  # bytes of an answer
RESOURCE = "/v1/ready"


class Readiness(BaseModel):
    """What a node says of itself. Another version's may have more fields."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    node: str
    ready: bool
    """It forwards, and will for some time."""
    reason: str
    """Why it is not ready."""
    configuration: str
    """Digest of pools, services and flows."""
    roster: str
    """Digest of who hands fragments over to whom."""


@dataclass(frozen=True)
class Objection:
    """Why a node is given no fragments; ``decisive``: it said so itself, and need not again."""

    reason: str
    decisive: bool


@dataclass(frozen=True)
class Sight:
    """How this node sees another one; ``since``: UNIX time. ``streak``: contrary answers so far."""

    live: bool
    since: float
    reason: str = ""
    streak: int = 0


def objection(name: str, own: Readiness, answer: Readiness | str) -> Objection | None:
    """Return what speaks against giving node ``name`` fragments; a text: why it did not answer."""
    if isinstance(answer, str):
        return Objection(answer, decisive=False)
    if answer.node != name:
        reason = f"calls itself {answer.node}"
    elif not answer.ready:
        reason = f"not ready: {answer.reason}"
    elif answer.configuration != own.configuration:
        reason = "has another configuration (lbfwd status --fleet)"
    elif answer.roster != own.roster:
        reason = "has other [fleet] nodes or fragments"
    else:
        return None
    return Objection(reason, decisive=True)


def step(before: Sight, found: Objection | None, now: float) -> Sight:
    """Return how a node is seen after one more answer, or miss."""
    reason = found.reason if found else ""
    if (found is None) == before.live:
        return replace(before, streak=0, reason=reason)
    streak = before.streak + 1
    needed = (1 if found.decisive else MISSES) if found else ANSWERS
    if streak < needed:
        return replace(before, streak=streak, reason=reason or before.reason)
    return Sight(not before.live, now, reason)


async def ask(session: aiohttp.ClientSession, api: str) -> Readiness | str:
    """Return what the node that listens at ``api`` says of itself, or why nothing was heard."""
    try:
        async with asyncio.timeout(ANSWER_S), session.get(f"http://{api}{RESOURCE}") as response:
            return Readiness.model_validate_json(await response.content.read(_LONGEST))
    except TimeoutError:
        return f"{api}: no answer within {ANSWER_S:g} s"
    except (aiohttp.ClientError, OSError) as error:
        return f"{api}: {error}"
    except ValueError:
        return f"{api}: an answer that is not understood"
