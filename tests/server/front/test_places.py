"""The oldest of the connections that are idle, or whose bodies arrive."""

from server.front.places import Places


class Connection:
    asked = 0

    def __init__(self, idle=True):
        self._idle, self.transport = idle, None

    @property
    def idle(self):
        type(self).asked += 1
        return self._idle

    @property
    def arriving(self):
        return not self._idle


def test_the_oldest_is_found_without_asking_all():
    places, connections = Places(), [Connection() for _ in range(1000)]
    for each in connections:
        places.waits(each)
    for each in connections[:10]:
        each._idle = False
        places.receives(each)
    Connection.asked = 0
    assert places.oldest_idle() is connections[10]
    assert places.oldest_idle() is connections[10]
    assert Connection.asked == 12
    assert places.oldest_arriving() is connections[0]


def test_who_waits_again_is_the_newest_and_who_leaves_is_gone():
    places = Places()
    first, second, third = (Connection() for _ in range(3))
    for each in (first, second, third, first):
        places.waits(each)
    places.close(second)
    assert list(places.closing) == [second]
    assert places.oldest_idle() is third
    places.leave(third)
    places.leave(second)
    assert not places.closing
    assert places.oldest_idle() is first
    places.leave(first)
    assert places.oldest_idle() is places.oldest_arriving() is None
