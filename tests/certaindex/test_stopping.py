import pytest

from certaindex.rules.threshold import CertaindexThreshold
from certaindex.stopping import describe_rules, parse_rule


def test_parameters_by_position_name_and_short_name() -> None:
    expected = CertaindexThreshold(threshold=0.8, min_samples=3, every=2)
    assert parse_rule("certaindex:0.8,min=3,every=2") == expected
    assert parse_rule("certaindex:threshold=0.8,min_samples=3,every=2") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("guess", "rule 'guess' is unknown; known rules: default, fixed"),
        ("fixed:x", "rule fixed: samples must be a whole number, not 'x'"),
        ("fixed:0", "rule fixed: samples must be 1 or more, not 0"),
        ("certaindex:2", "rule certaindex: threshold must be between 0 and 1, not 2.0"),
        ("certaindex:nan", "threshold must be between 0 and 1, not nan"),
        ("certaindex:min=1", "min_samples must be 2 or more, not 1"),
        ("esc:5,speed=3", "rule esc: unknown parameter 'speed'; allowed: window"),
        ("esc:5,window=3", "rule esc: parameter 'window' is given twice"),
        ("esc:3,4", "rule esc: '4' is not understood; allowed: window=VALUE"),
        ("fixed:3+luck", "only 'hopeless' may follow '+', not 'luck'"),
        ("fixed:3+hopeless:2", "rule hopeless: share must be between 0 and 1, not 2.0"),
        ("sprt:share=0.5", "rule sprt: share must be above 0.5 and below 1, not 0.5"),
    ],
)
def test_errors_name_rule_parameter_value_and_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_rule(text)
    assert message in str(caught.value)


def test_every_described_rule_can_be_parsed() -> None:
    for row in describe_rules():
        text = row.syntax.replace("RULE", "adaptive-consistency")
        assert parse_rule(text).decide
        assert row.meaning
        assert row.paper
