import asyncio

import pytest

from curate.fetch.room import Part, Room


class Held:
    """Parts that hold room until they are let go, and how much is held."""

    def __init__(self, size):
        self.room, self.now, self.most, self.order = Room(size), 0, 0, []

    async def hold(self, name, count, seconds):
        with Part(self.room) as part:
            await part.need(count)
            self.order.append(name)
            self.now += min(count, self.room.size)
            self.most = max(self.most, self.now)
            await asyncio.sleep(seconds)
            await part.need(10 * count)
            self.now -= min(count, self.room.size)


def test_all_get_room_in_turn_and_never_more_than_there_is():
    held = Held(10)
    counts = [4, 4, 4, 1, 10, 3, 100, 7, 2]

    async def run():
        await asyncio.gather(*(held.hold(*each, 0.001) for each in enumerate(counts)))

    asyncio.run(asyncio.wait_for(run(), 10))
    assert held.most <= 10
    assert held.order == [*range(len(counts))]
    assert held.room.take_at_once(10)


def test_who_gives_up_keeps_no_room_and_holds_up_nobody():
    held = Held(10)

    async def run():
        first = asyncio.create_task(held.hold("first", 6, 0.05))
        await asyncio.sleep(0)
        large = asyncio.create_task(held.hold("large", 10, 0))
        small = asyncio.create_task(held.hold("small", 3, 0))
        await asyncio.sleep(0.01)
        assert held.order == ["first"]
        large.cancel()
        await small
        assert held.order == ["first", "small"]
        late = asyncio.create_task(held.hold("late", 10, 0))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        late.cancel()  # at the moment at which it gets room
        await asyncio.gather(first, large, late, return_exceptions=True)

    asyncio.run(asyncio.wait_for(run(), 10))
    assert held.room.take_at_once(10)


def test_the_time_of_an_attempt_stands_still_while_it_waits():
    room = Room(10)

    async def run():
        assert room.take_at_once(10)
        asyncio.get_running_loop().call_later(0.3, room.give, 10)
        with Part(room) as part:
            async with asyncio.timeout(0.2) as part.limit:
                await part.need(1)
            assert 0.25 < part.waited_s < 10
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01) as part.limit:
                    await asyncio.sleep(5)

    asyncio.run(asyncio.wait_for(run(), 10))
