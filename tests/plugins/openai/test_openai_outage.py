"""A server that goes away for a while is waited for; one that never answered is not."""

import asyncio
import socket

import pytest

from influence_cli.errors import CallFailedError
from influence_cli.testing.server import serve


async def until_refused(server) -> None:
    port = int(server.root.rpartition(":")[2])
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return
        await asyncio.sleep(0.01)


async def test_a_server_that_goes_away_is_waited_for_and_no_request_is_counted_twice(make_backend, say, caplog):
    with serve() as server:
        backend = make_backend(base_url=server.base_url, max_attempts=2, retry_delay=0.02)
        await backend.generate(say(seed=1))
        server.outage(2.0)
        await until_refused(server)
        answers = await asyncio.gather(*(backend.generate(say(seed=seed)) for seed in range(2, 10)))
        # only one may have gone out in vain, over the connection of the first, whose end had not been noticed yet
        assert sorted(answer.usage.requests for answer in answers)[:-1] == [1] * 7
        assert server.stats()["requests"] == 9
    told = [record.message for record in caplog.records if "is away" in record.message]
    assert told == ["127.0.0.1 is away; calls wait for it, for 300 s at most."]


async def test_a_server_that_stays_away_fails_after_the_time_allowed(make_backend, say):
    with serve() as server:
        backend = make_backend(base_url=server.base_url, max_attempts=2, outage=0.2, retry_delay=0.02)
        await backend.generate(say(seed=1))
    with pytest.raises(CallFailedError, match="connection failed") as caught:
        await backend.generate(say(seed=2))
    assert caught.value.kind == "connection"
    assert caught.value.attempts <= 1, "only the first may have gone out, over a connection that was still open"


async def test_a_server_that_never_answered_is_not_waited_for(make_backend, say):
    backend = make_backend(base_url="http://127.0.0.1:9/v1", max_attempts=2, outage=3600.0)
    with pytest.raises(
        CallFailedError, match=r"nothing listens at http://127\.0\.0\.1:9/v1 .*given up after 2 attempts"
    ):
        await backend.generate(say())
