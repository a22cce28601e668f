import pytest

from tests.tools.traffic.traffic import Traffic

pytestmark = pytest.mark.usefixtures("order")


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=pytest.mark.exhaustive if seed >= 60 else ()) for seed in range(100)]
)
def test_under_random_traffic_every_answer_is_its_own_and_every_page_comes_back(seed):
    Traffic(seed).run()
