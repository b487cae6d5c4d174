from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pyp_cspr.engine.errors import InputError
from pyp_cspr.engine.io.star import StarBlock, read_star, write_star

TEXT = """
# version 50001

data_

_rlnFile 'a b.star' # a comment
_rlnCount  3

data_optics

loop_
_rlnOpticsGroupName #1
_rlnValue #2
'my group' 1.5
"it's" -2e3
_odd [1, 2, 3]
plain#1 nan   # the value holds a mark

data_empty

loop_
_rlnX #1

data_last
loop_
_rlnName
"data_001"
"""


def write(tmp_path, text):
    path = tmp_path / "a.star"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_blocks_singles_and_quotes(tmp_path):
    blocks = read_star(write(tmp_path, TEXT))
    assert list(blocks) == ["", "optics", "empty", "last"]
    assert blocks[""].single("rlnFile") == "a b.star"
    assert not blocks[""].loop
    assert blocks[""].integers("rlnCount").tolist() == [3]
    assert blocks["optics"].texts("rlnOpticsGroupName") == ["my group", "it's", "_odd", "plain#1"]
    assert blocks["optics"].texts("rlnValue")[2] == "[1, 2, 3]"
    assert len(blocks["empty"]) == 0
    assert blocks["empty"].floats("rlnX").shape == (0,)
    assert blocks["last"].texts("rlnName") == ["data_001"]


def test_columns_are_checked(tmp_path):
    block = StarBlock("p", {"a": ["1", "x"], "b": ["1.5", "2"], "c": ["inf", "1"], "v": ["[1,2]", "[1,2,3]"]}, True, "f.star")
    with pytest.raises(InputError, match=r"f\.star: data_p row 2: _a is 'x'"):
        block.floats("a")
    with pytest.raises(InputError, match=r"row 1: _b is 1.5, want a whole"):
        block.integers("b")
    with pytest.raises(InputError, match="_c is 'inf'"):
        block.floats("c")
    with pytest.raises(InputError, match="want 2 numbers"):
        block.vectors("v", 2)
    with pytest.raises(InputError, match=r"f\.star: data_p has no column _d"):
        block.floats("d")
    with pytest.raises(InputError, match="2 values, want one"):
        block.single("a")
    assert block.floats("d", 7).tolist() == [7, 7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no data_ block"),
        ("hello", "line 1: 'hello' before any data_"),
        (b"\xff\xfe\x00", "not a text file"),
        ("data_a\nloop_\n", "without columns"),
        ("data_a\nloop_\n_x\n_y\n1 2\n3\n", "line 6: 1 values, data_a has 2 columns"),
        ("data_a\nloop_\n_x\n_x\n1 2\n", "column _x twice"),
        ("data_a\n_x 1\n_x 2\n", "_x twice"),
        ("data_a\n_x\n", "_x has 0 values"),
        ("data_a\n_x 1\nloop_\n_y\n", "a second loop_"),
        ("data_a\nloop_\n_y\n1\nloop_\n_z\n", "a second loop_"),
        ("data_a\nloop_\n_y\n1\ndata_a\n", "a second block data_a"),
        ("data_a\nvalue\n", "belongs to no loop_"),
        ("data_a b\n", "want data_NAME alone"),
    ],
)
def test_wrong_files(tmp_path, text, message):
    with pytest.raises(InputError, match=r"a\.star") as caught:
        read_star(write(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_unwritable(tmp_path):
    for path in (tmp_path / "missing.star", tmp_path, "null\0character"):
        with pytest.raises(InputError, match="cannot be read"):
            read_star(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_star(tmp_path / "file" / "a.star", {"a": StarBlock(columns={"x": ["1"]})})
    with pytest.raises(ValueError, match="columns of"):
        write_star(tmp_path / "a.star", {"a": StarBlock(columns={"x": ["1"], "y": []})})
    with pytest.raises(ValueError, match="cannot be written"):
        write_star(tmp_path / "a.star", {"a": StarBlock(columns={"x": ["two\nlines"]})})
    assert not (tmp_path / "a.star").exists()


VALUES = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), max_size=12).filter(
    lambda text: not ("' " in text and '" ' in text) and not (text.endswith(("'", '"')) or "' " in text or '" ' in text)
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(rows=st.lists(st.tuples(VALUES, VALUES), max_size=5))
@example(rows=[("", "loop_"), ("data_x", "_y"), ("#", "a#"), ("[1 2]", "[1,2]"), ("'a", '"b'), ("[a] b", "x\u00a0y")])
def test_round_trip(tmp_path, rows):
    columns = {"one": [row[0] for row in rows], "two": [row[1] for row in rows]}
    write_star(tmp_path / "r.star", [StarBlock("block", columns)])
    assert read_star(tmp_path / "r.star")["block"].columns == columns


PIECES = st.sampled_from(
    [
        "data_",
        "data_a",
        "loop_",
        "_x",
        "_y #2",
        "1",
        "'",
        '"',
        "[",
        "]",
        "[1,2]",
        "#",
        " ",
        "\n",
        "\n",
        "\n",
        "\t",
        "nan",
        "\0",
        "\r",
        "é",
    ]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.lists(PIECES, max_size=40).map("".join), st.text(max_size=60)))
def test_fuzz_gives_blocks_or_input_error(tmp_path, text):
    try:
        blocks = read_star(write(tmp_path, text.encode("utf-8", "surrogatepass")))
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    for block in blocks.values():
        assert len({len(values) for values in block.columns.values()}) <= 1
