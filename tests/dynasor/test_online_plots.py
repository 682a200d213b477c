"""The pictures of the online benchmark."""

from certaindex.evidence import Evidence
from dynasor.bench.online_plots import colour_of
from dynasor.bench.systems import all_systems


def test_no_two_systems_have_one_colour():
    learned = Evidence(-0.5, 0.5, 5.0, 0.0, samples=1000, cut_below=0.2, look_every=4)
    systems = all_systems("default", 4, evidence=learned)
    assert len({colour_of(system.name, systems) for system in systems}) == len(systems) == 14
