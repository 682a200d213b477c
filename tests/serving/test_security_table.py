"""Each line of the security table names a test that there is."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_tests_of_the_security_table_exist():
    text = (ROOT / "docs" / "endpoint.md").read_text()
    table = text[text.index("## Security") :]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    file = ""
    for row in rows:
        named = re.findall(r"`(…|test_\w+\.py)(?:::(test_\w+))?`", row.split("|")[3])
        assert named, row
        for where, test in named:
            file = file if where == "…" else where
            content = (Path(__file__).parent / file).read_text()
            assert not test or f"def {test}(" in content, f"{file}::{test}"
