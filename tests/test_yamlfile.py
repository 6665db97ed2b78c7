import pytest

from gpbo.errors import StudyFileError
from gpbo.yamlfile import Problem, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("-1.5E+3", -1500.0),
        (".5", 0.5),
        ("010", 10),
        ("+3", 3),
        ("on", "on"),
        ("no", "no"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("12:30:45", "12:30:45"),
        ("'1'", "1"),
        (".inf", float("inf")),
        ("1_000", "1_000"),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    read = parse_yaml(f"a: {text}\n", "s.yaml").plain["a"]
    assert read == value
    assert type(read) is type(value)


def test_every_value_knows_its_line():
    file = parse_yaml("a: 1\nb:\n  - x\n  - {y: 2,\n     z: 3}\n", "s.yaml")
    assert file.lines[("a",)] == 1
    assert file.lines[("b",)] == 2
    assert file.lines[("b", 0)] == 3
    assert file.lines[("b", 1, "z")] == 5
    assert file.line(("b", 1, "z", "unknown", 7)) == 5


def test_anchors_and_merged_keys():
    file = parse_yaml("base: &base {x: 1, y: 2}\nmine:\n  <<: *base\n  y: 3\n", "s.yaml")
    assert file.plain["mine"] == {"x": 1, "y": 3}
    assert file.lines[("mine", "y")] == 4


def test_problems_are_listed_by_line():
    file = parse_yaml("a: 1\nb: {c: 2}\n", "s.yaml")
    error = file.error([Problem(("b",), "is odd.", "c"), Problem(("a",), "is even.")])
    assert str(error) == "s.yaml:1: a: is even.\ns.yaml:2: b: is odd."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"^s\.yaml: the file is empty"),
        ("# nothing\n", r"^s\.yaml: the file is empty"),
        ("- a\n", r"^s\.yaml:1: the file must be a mapping"),
        ("x\n", r"^s\.yaml:1: the file must be a mapping"),
        ("a: 1\nb: 2\na: 3\n", r"^s\.yaml:3: 'a' stands here a second time, first in line 1"),
        ("a:\n  b: 1\n  b: 1\n", r"^s\.yaml:3: 'b' stands here a second time"),
        ("a:\n\tb: 1\n", r"^s\.yaml:2: not YAML: .*spaces, not tabs"),
        ("a: [1\n", r"^s\.yaml:2: not YAML: .*expected ',' or '\]'"),
        ("a: 1\n---\nb: 1\n", r"^s\.yaml:2: not YAML: expected a single document"),
        ("a: &x [*x]\n", r"^s\.yaml:1: a value must not contain itself"),
        ("[1]: 2\n", r"^s\.yaml:1: a key must be a plain name"),
        ("a: 1\nb: !foo 2\n", r"^s\.yaml:2: not YAML: .*!foo"),
        ("a: !!int foo\n", r"^s\.yaml:1: not YAML: 'foo' is not a number"),
        ("a: \x07\n", r"^s\.yaml: not YAML: unacceptable character"),
    ],
)
def test_what_is_not_a_mapping_is_refused_with_its_line(text, message):
    with pytest.raises(StudyFileError, match=message):
        parse_yaml(text, "s.yaml")


def test_a_file_must_be_there_and_be_utf8(tmp_path):
    with pytest.raises(StudyFileError, match="cannot be read: No such file"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(StudyFileError, match=r"latin\.yaml:2: the file must be UTF-8"):
        read_yaml(tmp_path / "latin.yaml")
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(tmp_path / "bom.yaml").plain == {"a": 1}
