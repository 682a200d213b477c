"""Which replica runs a request: the rule by hand and as properties, and the account that it goes by."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.program import Request, Sampling
from dynasor.scheduling.authors import Authors
from dynasor.scheduling.placements import TYPICAL, Placements
from dynasor.scheduling.prefix_homes import PrefixHomes, tokens_of
from dynasor.scheduling.routing import PREFILL, ReplicaFacts, Wanted, route, two_choices

DRAW = Random(1)


def facts(requests=0, expected=0.0, places=4, usable=True):
    return ReplicaFacts(places, requests, expected, usable)


def ask(id, program="q", prompt="why? " * 40, prefix=""):
    return Request(id, program, prompt, Sampling(), prefix=prefix)


# The rule by hand.


def test_a_gang_stays_at_home_while_that_has_a_free_place():
    busy_home, idle = facts(3, 9000), facts()
    assert route(Wanted(100, home=0), [busy_home, idle], DRAW) == 0


def test_a_gang_is_split_only_where_that_ends_it_sooner():
    full = facts(4, 400)  # a place is free after 100 tokens
    idle = facts()
    assert full.wait == 100
    assert route(Wanted(100 / PREFILL + 1, home=0), [full, idle], DRAW) == 0
    assert route(Wanted(100 / PREFILL - 1, home=0), [full, idle], DRAW) == 1
    # Where a sibling is already, the prompt costs nothing.
    held = Wanted(1000, home=0, held={1: 1000})
    assert route(held, [full, idle], DRAW) == 1
    # Nothing is gained by a queue as long as the one at home.
    assert route(Wanted(0, home=0), [full, facts(4, 400)], DRAW) == 0


def test_a_branch_stays_with_its_parent_however_full_that_is():
    crowded, idle = facts(50, 1e6), facts()
    assert route(Wanted(0, home=1, author=0), [crowded, idle], DRAW) == 0


def test_a_new_gang_goes_where_less_is_expected_prompt_included():
    replicas = [facts(1, 500), facts(1, 400)]
    assert route(Wanted(1000), replicas, DRAW) == 1
    assert route(Wanted(1000, held={0: 1000}), replicas, DRAW) == 0
    assert (
        route(Wanted(1000, held={0: 300}), replicas, DRAW) == 1
    )  # 90 tokens saved, 100 more to do


def test_what_is_not_usable_comes_last():
    down, up = facts(usable=False), facts(9, 1e6)
    for wanted in (Wanted(1), Wanted(1, home=0), Wanted(1, home=0, author=0)):
        assert route(wanted, [down, up], DRAW) == 1
    assert route(Wanted(1), [down, up], DRAW, exclude=[1]) == 0
    assert route(Wanted(1), [down, up], DRAW, exclude=[0, 1]) in (0, 1)


# The rule as properties.

REPLICAS = st.lists(
    st.builds(
        ReplicaFacts,
        places=st.integers(1, 8),
        requests=st.integers(0, 20),
        expected=st.floats(0, 1e5),
        usable=st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


@given(REPLICAS, st.data())
def test_the_choice_is_usable_and_a_split_gains(replicas, data):
    anyone = st.none() | st.integers(0, len(replicas) - 1)
    wanted = Wanted(data.draw(st.floats(0, 1e4)), data.draw(anyone), data.draw(anyone))
    failed = data.draw(st.sets(st.integers(0, len(replicas) - 1)))
    chosen = route(wanted, replicas, Random(data.draw(st.integers(0, 99))), failed)
    fit = [r for r, each in enumerate(replicas) if each.usable and r not in failed]
    assert chosen in (fit or range(len(replicas)))
    if wanted.author in fit:
        assert chosen == wanted.author
    elif wanted.home in fit and chosen != wanted.home:
        home, away = replicas[wanted.home], replicas[chosen]
        assert home.requests >= home.places
        assert away.wait + PREFILL * wanted.prompt < home.wait


@given(REPLICAS, st.integers(0, 1000))
def test_two_choices_are_two_different_usable_ones(replicas, seed):
    chosen = two_choices(replicas, Random(seed))
    usable = [r for r, each in enumerate(replicas) if each.usable]
    assert len(set(chosen)) == len(chosen) == min(2, len(usable or replicas))
    assert set(chosen) <= set(usable or range(len(replicas)))


# The account.


def fleet(replicas=2, places=2):
    placements = Placements()
    for _ in range(replicas):
        placements.add(places)
    return placements


def test_a_gang_is_counted_where_its_members_are():
    placements = fleet()
    home = placements.place(ask("a"))
    assert placements.place(ask("b")) == home
    away = placements.place(ask("c"))
    assert away == 1 - home
    assert [placements.replicas[r].requests for r in (home, away)] == [2, 1]
    placements.hint("q", 900)
    assert [placements.replicas[r].expected for r in (home, away)] == [600, 300]
    placements.end("a", 100)
    assert [placements.replicas[r].expected for r in (home, away)] == [450, 450]
    placements.end("b")
    placements.end("c")
    placements.end("c")
    assert {(r.requests, r.expected) for r in placements.replicas} == {(0, 0.0)}


def test_without_hints_requests_count_what_others_took():
    placements = fleet(1)
    placements.place(ask("a"))
    assert placements.replicas[0].expected == TYPICAL
    placements.end("a", 100)
    placements.place(ask("b"))
    assert placements.replicas[0].expected == (TYPICAL + 100) / 2


def test_a_gang_whose_home_is_lost_moves_as_a_whole():
    placements = fleet(3, places=8)
    home = placements.place(ask("a"))
    placements.lost(home)
    new = placements.place(ask("a"), [home])
    assert new != home
    assert {placements.place(ask(name)) for name in "bcd"} == {new}
    assert placements.replicas[home].requests == 0
    assert placements.replicas[new].requests == 4


def test_a_replica_that_comes_takes_the_place_of_a_lost_one_that_has_nothing_left():
    placements = fleet(2)
    home = placements.place(ask("a"))
    placements.lost(home)
    assert placements.add(4) == 2  # the lost one drains
    placements.end("a", 10)
    assert placements.add(5) == home
    assert placements.add(6) == 3
    assert (placements.replicas[home].places, placements.replicas[home].usable) == (5, True)
    assert [replica.requests for replica in placements.replicas] == [0, 0, 0, 0]


def test_what_goes_on_follows_the_text_that_it_goes_on_from():
    placements, authors = fleet(2, places=1), Authors()

    def place(id, prefix=""):
        request = ask(id, prefix=prefix)
        return placements.place(request, author=authors.of(request))

    home, away = place("a"), place("b")
    assert away != home
    authors.wrote(ask("a"), home, "step one")
    authors.wrote(ask("b"), away, "another step")
    assert place("b.1", "another step") == away
    assert place("b.2", "another step, and more") == away
    assert place("a.1", "step one") == home
    assert place("a.2", "something else") == home
    # And so do the children of children.
    authors.wrote(ask("b.1", prefix="another step"), away, " further")
    assert place("b.1.1", "another step further") == away
    placements.lost(away)
    assert place("b.3", "another step") == home


def test_chats_with_a_shared_system_prompt_go_to_one_replica_while_it_has_little_to_do():
    placements = fleet(8, places=64)
    system = {"role": "system", "content": "You are a careful assistant. " * 400}

    def chat(n):
        return ask(f"c{n}", f"c{n}", (system, {"role": "user", "content": f"question {n}"}))

    first = placements.place(chat(0))
    saved = PREFILL * tokens_of((system,))
    assert saved > TYPICAL
    assert placements.place(chat(1)) == first
    placements.hint("c0", 100 * saved)
    assert placements.place(chat(2)) != first


@given(st.lists(st.text(max_size=3), max_size=5), st.lists(st.text(max_size=3), max_size=5))
def test_held_tokens_are_those_of_the_longest_common_beginning(one, other):
    homes = PrefixHomes()
    homes.note(tuple({"role": "user", "content": text} for text in one), 3)
    common = 0
    while common < min(len(one), len(other)) and one[common] == other[common]:
        common += 1
    found = homes.held(tuple({"role": "user", "content": text} for text in other))
    assert found.get(3, 0) == sum(map(len, one[:common])) / 4
    homes.forget(3)
    assert 3 not in homes.held(tuple({"role": "user", "content": text} for text in one))


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans()), max_size=60))
def test_the_account_is_what_a_recount_gives(moves):
    placements = fleet(3)
    where = {}
    for gang, member, comes in moves:
        name = f"{gang}.{member}"
        if comes:
            where[name] = placements.place(ask(name, str(gang)))
        else:
            placements.end(name, 10)
            where.pop(name, None)
        for index, replica in enumerate(placements.replicas):
            assert replica.requests == list(where.values()).count(index)
            assert (replica.expected > 0) == (replica.requests > 0)
