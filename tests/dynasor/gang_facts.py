"""A clock that tests set, and all that a queue knows of a gang."""

from dataclasses import dataclass

from dynasor.scheduling.gang import Gang


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self):
        return self.now


def vars_of(gang):
    return {name: getattr(gang, name) for name in Gang.__slots__}
