"""What is decided on queries, by hand: no engine and no clock."""

from algorithms.best_of_n import BestOfN
from algorithms.program import Generation, Sampling
from algorithms.self_consistency import SelfConsistency
from algorithms.task import Task
from certaindex.groups import AnswerGroups, ExactEquivalence
from certaindex.stopping import parse_rule
from dynasor.allocator import GlobalBudget, LiveQuery, PerQuery
from dynasor.decisions import Cut, Hint, Start, Stop, press, review, watch


def query(name="q", samples=4, kind=SelfConsistency):
    groups = AnswerGroups(ExactEquivalence())
    task = Task(name, "what?", Sampling(), lambda text: text or None, groups)
    return LiveQuery(kind(task, samples=samples))


def rule(text="fixed:4", wave=2):
    return PerQuery(parse_rule(text), wave)


def carried_out(decisions):
    """The decisions, as they are carried out: what is started is in flight, what is stopped stops."""
    done = []
    for decision in decisions:
        done.append(decision)
        if isinstance(decision, Start):
            decision.query.in_flight.add(decision.request.id)
        elif isinstance(decision, Stop):
            decision.query.stopping = True
    return done


def ended(asked, name, text="7"):
    asked.in_flight.discard(name)
    asked.program.receive(Generation(name, text, 10))


def started(decisions):
    return [decision.request.id for decision in decisions if isinstance(decision, Start)]


def test_a_new_query_is_hinted_and_gets_its_wave():
    asked, allocator = query(), rule()
    first, *starts = carried_out(review(asked, allocator))
    assert first == Hint(asked)
    assert started(starts) == ["q#0", "q#1"]
    ended(asked, "q#0")
    assert started(carried_out(review(asked, allocator))) == ["q#2"]


def test_a_query_that_has_had_enough_is_stopped_and_gets_nothing_more():
    asked, allocator = query(), rule("fixed:1")
    carried_out(review(asked, allocator))
    ended(asked, "q#1")
    assert carried_out(review(asked, allocator)) == [Stop(asked, "certain")]
    assert carried_out(review(asked, allocator)) == []


def test_a_late_query_is_stopped_with_its_first_answer():
    asked, allocator = query(), rule()
    carried_out(review(asked, allocator))
    assert carried_out(press(asked)) == []
    ended(asked, "q#0")
    assert carried_out(review(asked, allocator)) == [Stop(asked, "deadline")]


def test_what_follows_from_work_is_started_before_the_query_is_held_to_be_complete():
    asked, allocator = query(samples=1, kind=BestOfN), rule()
    carried_out(review(asked, allocator))
    ended(asked, "q#0")
    assert [type(each) for each in carried_out(review(asked, allocator))] == [Start, Hint]
    assert asked.following == asked.in_flight == {"q#score-0"}


def test_a_query_that_a_cut_has_ended_is_not_looked_at_again():
    asked, allocator = query(), rule()
    carried_out(review(asked, allocator))
    asked.program.cancelled = lambda: ["q#0"]
    for decisions in (watch(asked), review(asked, allocator)):
        asked.stopping = False
        assert next(decisions) == Cut(asked, ["q#0"])
        asked.stopping = True  # as by a loop in which a cut request ends at once
        assert list(decisions) == []


def test_a_budget_that_is_used_up_stops_all_who_wait_for_it():
    allocator = GlobalBudget(15, lambda votes: 1.0, slots=1)
    one, other = query("one"), query("other")
    allocator.admit(one)
    allocator.admit(other)
    assert started(carried_out(review(one, allocator))) == ["one#0"]
    assert started(carried_out(review(other, allocator))) == []
    ended(one, "one#0")
    one.bill.finished += 10
    assert started(carried_out(review(one, allocator))) == ["other#0"]
    ended(other, "other#0")
    other.bill.finished += 10
    stops = carried_out(review(other, allocator))
    assert stops == [Stop(other, "budget"), Stop(one, "budget")]
