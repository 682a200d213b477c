import cProfile
import pstats
import time

t = time.process_time()
import pytest

pr = cProfile.Profile()
pr.enable()
pytest.main(
    ["tests/dynasor/test_tune.py", "-q", "-x", "-p", "no:cacheprovider", "-n0", "-k", "chosen"]
)
pr.disable()
pstats.Stats(pr).sort_stats("cumtime").print_stats(
    "dynasor|optuna|matplotlib|certaindex|sqlalchemy", 70
)
